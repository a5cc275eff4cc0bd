"""What every target shares: how many cases, what one case may take, and ways to damage what was good.

A target tries as many cases as PERCASYM_FUZZ says (`make test-slow` says 100,000). Unasked it tries 200; targets that load or
compose something each time divide that number by their `cost`.
"""

from __future__ import annotations

import copy
import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

ASKED = int(os.environ.get("PERCASYM_FUZZ", "0"))
CASES, LEAST = 200, 10
"""Cases of a target, and of the costliest ones, where nothing was asked."""


SECONDS, WAITING_SECONDS, MEMORY_BYTES = 5.0, 120.0, 2**28
"""Of one case: of processor time, of the clock (a busy machine gives it little of the former), and of memory."""


@contextmanager
def limited() -> Iterator[None]:
    """Raise TimeoutError where a case takes or waits too long, MemoryError where it asks for MEMORY_BYTES more than there were."""

    def stop(signum: int, frame: object) -> None:
        raise TimeoutError(f"a case took more than {SECONDS:g} s, or waited {WAITING_SECONDS:g} s")

    with open("/proc/self/statm", encoding="ascii") as pages:
        used = int(pages.read().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    before = {number: signal.signal(number, stop) for number in (signal.SIGPROF, signal.SIGALRM)}
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WAITING_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        for number, handler in before.items():
            signal.signal(number, handler)


def cases(cost: int = 1) -> Callable[..., Any]:
    """So many cases for a target, each of which costs this many times what a cheap one does."""
    return settings(max_examples=ASKED or max(CASES // cost, LEAST), deadline=None, suppress_health_check=list(HealthCheck))


@st.composite
def damaged(draw: st.DrawFn, originals: Sequence[bytes]) -> bytes:
    """One of these with up to four places flipped, cut, doubled or filled with other bytes."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        until = at + draw(st.integers(0, 8))
        match draw(st.sampled_from(["flip", "flip", "cut", "end", "double", "fill"])):
            case "flip":
                data[at : at + 1] = bytes(byte ^ (1 << draw(st.integers(0, 7))) for byte in data[at : at + 1])
            case "cut":
                del data[at:until]
            case "end":
                del data[at:]
            case "double":
                data[at:at] = data[at:until]
            case "fill":
                data[at:until] = draw(st.binary(max_size=8))
    return bytes(data)


scalars = (
    st.none() | st.booleans() | st.integers() | st.sampled_from([2**63, -(2**63), 10**30, 10**400]) | st.floats() | st.text(max_size=8)
)
junk = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=4
)
"""Whatever JSON and YAML can hold."""


@st.composite
def altered(draw: st.DrawFn, originals: Sequence[Any]) -> Any:
    """One of these records with up to three of its values replaced, left out or added."""
    value = copy.deepcopy(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from([place for place in places(value) if place] or [("new",)]))
        inside = value
        for step in way:
            inside = inside[step]
        match draw(st.sampled_from(["replace", "replace", "leave out", "add"])):
            case "leave out" if last in inside or isinstance(inside, list):
                del inside[last]
            case "add" if isinstance(inside, dict):
                inside[draw(st.text(max_size=4))] = draw(junk)
            case _:
                inside[last] = draw(junk)
    return value


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value of a record, itself included."""
    yield way
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*way, key))
