"""The targets of test_strangers.py on cases of a plain random generator: many times as fast as Hypothesis, without its shrinking.

    python -m tests.fuzz.fast 100000 yaml checkpoints

Each target prints its number of cases, seconds of processor time and how many were accepted; a failure prints the case and its number,
with which the same command finds it again. A case that failed is kept as an @example of the target in test_strangers.py.
"""

from __future__ import annotations

import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import test_strangers as targets
from tests.fuzz.conftest import places

SCALARS: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.0, 1e308, float("inf"), float("nan"), "", "x", "\0",
    "\x1b[2J", "../x", "/dev/zero", "=1+1", "é" * 9, "\ud800", [], {}, [[]], {"a": {}}, [0] * 30_000,
)  # fmt: skip
TEXTS = (
    "", "a", "[", "]", "{", "}", ": ", "- ", "&a ", "*a", "!!python/object:os.system ", "\n", "  ", "\t", "\"", "'", "|", ">", "9" * 5000,
    "\ufeff",
)  # fmt: skip
PATHS = (
    "images/7.png", "../x", "/etc/passwd", "/dev/zero", "~", "~nouser/x", "file:///dev/zero", "file://evil/x", "http://evil/x", "data:,x",
    "C:\\x", "\\\\x", "a/../../b", ".", "", "iVBORw0KGgo=", "x" * 5000,
)  # fmt: skip


def damaged(random: Random, originals: Sequence[bytes]) -> bytes:
    """One of these with up to six places flipped, cut, doubled or filled."""
    data = bytearray(random.choice(originals))
    for _ in range(random.randint(1, 6)):
        at = random.randrange(len(data) + 1)
        match random.randrange(5):
            case 0 if data:
                data[at % len(data)] ^= 1 << random.randrange(8)
            case 1:
                del data[at : at + random.randrange(9)]
            case 2:
                data[at:at] = data[at : at + random.randrange(40)] * random.randrange(1, 4)
            case 3:
                data[at:at] = random.choice(TEXTS).encode("utf-8", "surrogatepass")
            case _:
                data[at:at] = random.randbytes(random.randrange(5))
    return bytes(data)


def altered(random: Random, original: Any) -> Any:
    """The record with up to three of its values replaced, left out, exchanged or added."""
    value = copy.deepcopy(original)
    for _ in range(random.randint(1, 3)):
        ways = [place for place in places(value) if place]
        if not ways:
            return value
        *way, last = random.choice(ways)
        inside = value
        for step in way:
            inside = inside[step]
        match random.randrange(4):
            case 0:
                del inside[last]
            case 1 if isinstance(inside, dict):
                inside[random.choice(("x", "", "type", "_target_", "\x1b"))] = copy.deepcopy(random.choice(SCALARS))
            case 2:
                inside[last] = {"x": inside[last]} if random.random() < 0.5 else [inside[last]] * random.choice((1, 2, 100))
            case _:
                inside[last] = copy.deepcopy(random.choice(SCALARS))
    return value


def text(random: Random, alphabet: str, longest: int) -> str:
    """A text of these characters."""
    return "".join(random.choices(alphabet, k=random.randrange(longest)))


def inner(name: str) -> Callable[..., None]:
    """The function under Hypothesis' decorators."""
    return getattr(targets, name).hypothesis.inner_test


def of(folder: Path) -> dict[str, Callable[[Random], None]]:
    """The targets; each runs one case."""
    picture = [{"bytes": None, "path": "images/7.png"}, {"url": "file:///x.png"}]
    signs = "ab.*+?()|[]{}\\d1,^$ps"
    return {
        "yaml": lambda r: inner("test_yaml_of_others")(damaged(r, targets.YAML)),
        "json": lambda r: inner("test_json_of_others")(damaged(r, [json.dumps(targets.CONFIG).encode()])),
        "checkpoints": lambda r: inner("test_configurations_of_checkpoints")(
            folder, altered(r, targets.CONFIG), altered(r, targets.ADAPTER)
        ),
        "runs": lambda r: inner("test_a_run_of_others_is_found_or_refused_and_deletes_nothing_outside")(
            folder, altered(r, targets.META), altered(r, {"seed": 0, "paradigm": {"steps": 4}})
        ),
        "pictures": lambda r: inner("test_a_picture_of_others_is_read_or_refused")(
            folder, r.choice((r.choice(PATHS), damaged(r, [b"iVBORw0KGgo="]).decode("latin-1"), altered(r, r.choice(picture))))
        ),
        "paths": lambda r: inner("test_a_path_of_others_is_inside_or_unread")(folder, "/".join(r.choices(PATHS, k=r.randint(1, 3)))),
        "patterns": lambda r: inner("test_a_pattern_that_is_allowed_ends")(text(r, signs, 30)),
        "splits": lambda r: inner("test_a_split_pattern_that_is_linear_splits_in_time")(text(r, signs, 20)),
        "tokenizers": lambda r: inner("test_a_tokenizer_that_is_accepted_is_built_and_encodes")(
            altered(r, targets.TOKENIZER), text(r, "ab é\n", 50)
        ),
        "texts": lambda r: inner("test_texts_of_others_are_escaped")(damaged(r, [b"a|b <x> [y](z) =1 \x1b[2J"]).decode("utf-8", "replace")),
    }


def main(number: int, names: Sequence[str]) -> int:
    """Run so many cases of each target; returns 1 where one failed."""
    with tempfile.TemporaryDirectory() as place:
        known = of(Path(place))
        for name in names or known:
            began, case = time.process_time(), 0
            try:
                for case in range(number):
                    known[name](Random(f"{name} {case}"))
            except Exception as error:  # Whatever is not a refusal is a finding.
                print(f"{name}: case {case} failed: {type(error).__name__}: {error}", flush=True)
                return 1
            spent = time.process_time() - began
            print(f"{name}: {number:,} cases in {spent:.1f} s, {number / max(spent, 1e-9):,.0f} a second", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
