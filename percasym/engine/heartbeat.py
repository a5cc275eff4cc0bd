"""Notice a rank that is frozen: its process is stopped, or its machine is gone without a word.

A collective waits hours for a missing rank (`COLLECTIVE_TIMEOUT` in ranks.py: writing a checkpoint may take long). The heartbeat is
independent of the work: a thread of each rank writes a counter and the rank's last step into the store of the process group and reads
those of the others, so a step costs nothing. A rank whose counter stands still for `launch.heartbeat_minutes` is frozen. A rank whose
process lives while its work hangs goes on counting; the timeout of the process group ends that one.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Self

from torch.distributed import DistNetworkError, DistStoreError, Store

from percasym.runs.progress import duration

MAX_INTERVAL_SECONDS = 15.0
"""Between two beats of a rank; shorter where the limit is."""
BEATS_IN_LIMIT = 10
"""Beats that a rank must miss in a row."""
SECONDS_TO_LEAVE = 10.0
"""How long a rank that leaves waits for a store that does not answer."""
LEFT = "left"
"""The beat of a rank that has ended its part of the run."""


class FrozenRankError(RuntimeError):
    """Ranks have not responded; the message is one sentence that names them."""


class Pulses:
    """When each other rank was last seen to count: numbers only, no threads and no clock."""

    def __init__(self, others: Iterable[int], limit_seconds: float, now: float) -> None:
        self._limit_seconds = limit_seconds
        self._beats: dict[int, str] = dict.fromkeys(others, "")
        self._moved_at = dict.fromkeys(self._beats, now)
        self._read_at = now

    def read(self, beats: Mapping[int, str], now: float) -> None:
        """Take the beats that were read at `now`.

        After a long pause (this process, or the store, was suspended; perhaps the other ranks too) all ranks get the whole limit again.
        """
        if now - self._read_at > self._limit_seconds / 2:
            self._moved_at = dict.fromkeys(self._beats, now)
        for rank, beat in beats.items():
            if beat != self._beats[rank]:
                self._beats[rank], self._moved_at[rank] = beat, now
        self._read_at = now

    def frozen(self) -> list[int]:
        """The ranks that had not counted for the limit when they were last read, without those that left."""
        limit = self._read_at - self._limit_seconds
        return [rank for rank, at in self._moved_at.items() if at <= limit and self._beats[rank] != LEFT]

    def steps(self) -> dict[int, int | None]:
        """The last step that each rank reported; None before the first, and for a rank that left."""
        return {rank: _step(beat) for rank, beat in self._beats.items()}


class Heartbeat:
    """The beats of this rank and the watch over the others; a context manager. Where `limit_seconds` is 0, it does nothing."""

    def __init__(
        self,
        store: Store | None,
        *,
        rank: int,
        num_ranks: int,
        limit_seconds: float,
        on_frozen: Callable[[FrozenRankError, bool], None],
        hosted_by_rank_0: bool = False,
    ) -> None:
        """`on_frozen(error, first)` is called in a thread while the work may be blocked in a collective.

        `first` is true on one of the remaining ranks. `hosted_by_rank_0`: the store ends and freezes with that rank, not with a launcher.
        """
        self.step: Callable[[], int | None] = lambda: None
        """Gives the last step of this rank."""
        # Another connection: a collective may block the first one. The stub of torch lacks the method.
        self._store: Store | None = store.clone() if store is not None and limit_seconds else None  # type: ignore[attr-defined]
        self._rank, self._num_ranks, self._limit_seconds = rank, num_ranks, limit_seconds
        self._on_frozen = on_frozen
        self._interval = min(MAX_INTERVAL_SECONDS, limit_seconds / BEATS_IN_LIMIT)
        self._ended = threading.Event()
        self._answered_at = time.monotonic()
        watches = [self._exchange, *([self._watch_host] if hosted_by_rank_0 and rank else [])]
        self._threads = [threading.Thread(target=watch, name="heartbeat", daemon=True) for watch in watches]

    def __enter__(self) -> Self:
        if self._store is not None:
            for thread in self._threads:
                thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Tell the other ranks that this one has left."""
        self._ended.set()
        if self._store is None:
            return
        self._threads[0].join(SECONDS_TO_LEAVE)
        if not self._threads[0].is_alive():
            self._exchanged(LEFT, read=False)

    def _exchange(self) -> None:
        """Beat and read, until this rank leaves or the store is gone (with the launcher, or with rank 0, which leaves last)."""
        others = [rank for rank in range(self._num_ranks) if rank != self._rank]
        pulses: Pulses | None = None
        count = 0
        while True:
            count += 1
            beats = self._exchanged(f"{count} {'' if (step := self.step()) is None else step}", read=pulses is not None)
            now = time.monotonic()
            if beats is None:
                return
            self._answered_at = now
            if pulses is None and self._all_began(others):
                pulses = Pulses(others, self._limit_seconds, now)
            if pulses is not None and beats:
                pulses.read({rank: beats[rank] for rank in others}, now)
                if frozen := pulses.frozen():
                    self._stop(frozen, pulses.steps())
                    return
            if self._ended.wait(self._interval):
                return

    def _exchanged(self, beat: str, *, read: bool) -> dict[int, str] | None:
        """Write the beat of this rank; returns those of all ranks, where they are `read`, and None once the store is gone."""
        assert self._store is not None
        try:
            self._store.set(_key(self._rank), beat)
            values = self._store.multi_get([_key(rank) for rank in range(self._num_ranks)]) if read else []
        except DistNetworkError:
            return None
        except DistStoreError:  # No answer within the store's timeout.
            return {}
        return {rank: value.decode() for rank, value in enumerate(values)}

    def _all_began(self, others: Sequence[int]) -> bool:
        """Whether every rank has written its first beat; reading a key that does not exist would block."""
        assert self._store is not None
        try:
            return self._store.check([_key(rank) for rank in others])
        except (DistNetworkError, DistStoreError):
            return False

    def _watch_host(self) -> None:
        """Notice that rank 0 is frozen, which hosts the store: then no call of `_exchange` returns."""
        woke_at = time.monotonic()
        while not self._ended.wait(self._interval):
            now = time.monotonic()
            if now - woke_at > self._limit_seconds / 2:  # This process was suspended; perhaps rank 0 too.
                self._answered_at = now
            woke_at = now
            if self._threads[0].is_alive() and now - self._answered_at > self._limit_seconds:
                self._stop([0], {0: None})
                return

    def _stop(self, frozen: Sequence[int], steps: Mapping[int, int | None]) -> None:
        first = min(set(range(self._num_ranks)) - {*frozen}) == self._rank
        if not self._ended.is_set():
            self._on_frozen(FrozenRankError(describe(frozen, {**steps, self._rank: self.step()}, self._limit_seconds)), first)


def describe(frozen: Sequence[int], steps: Mapping[int, int | None], seconds: float) -> str:
    """Which ranks are frozen, and the last step of each rank, in a sentence without its stop.

    >>> describe([1], {0: 12, 1: 11, 2: 12}, 600)
    'Rank 1 has not responded for 10 min 00 s: its process is frozen or its machine is gone (last steps: 11 of rank 1, 12 of ranks 0, 2)'
    >>> describe([0, 2], {0: None, 1: None, 2: None}, 3)[:50]
    'Ranks 0, 2 have not responded for 3 s: their proce'
    """
    by_step: dict[int, list[int]] = defaultdict(list)
    for rank in sorted(steps):
        by_step[-1 if (step := steps[rank]) is None else step].append(rank)
    last = ", ".join(f"{'none' if step < 0 else step} of {_ranks(ranks)}" for step, ranks in sorted(by_step.items()))
    one = len(frozen) == 1
    what = "its process is frozen or its machine is" if one else "their processes are frozen or their machines are"
    named = _ranks(frozen).capitalize()
    return f"{named} {'has' if one else 'have'} not responded for {duration(seconds)}: {what} gone (last steps: {last})"


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def _key(rank: int) -> str:
    return f"percasym/heartbeat/{rank}"


def _step(beat: str) -> int | None:
    step = beat.partition(" ")[2]
    return int(step) if step else None
