"""A rank whose process is frozen is noticed and named; one that left, or all that were suspended together, are not."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
from torch.distributed import DistNetworkError, DistStoreError, TCPStore

from percasym.engine.heartbeat import LEFT, FrozenRankError, Heartbeat, Pulses, describe

LIMIT = 10.0
SERVER = """
import sys, time
from datetime import timedelta
from torch.distributed import TCPStore
store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=60))
print(store.port, flush=True)
time.sleep(60)
"""
"""A process that hosts a store, as rank 0 of an srun does."""


def read(pulses: Pulses, now: float, **beats: str) -> list[int]:
    pulses.read({int(rank[1:]): beat for rank, beat in beats.items()}, now)
    return pulses.frozen()


def test_a_rank_that_stands_still_for_the_limit_is_frozen() -> None:
    pulses = Pulses([0, 2], LIMIT, now=0.0)
    for now in range(1, 12):
        frozen = read(pulses, now, r0=f"{now} 7", r2="1 6")
        assert frozen == ([2] if now >= 11 else []), "rank 2 was last seen to count at 1"
    assert pulses.steps() == {0: 7, 2: 6}


def test_a_rank_that_counts_within_the_limit_is_not() -> None:
    pulses = Pulses([1], LIMIT, now=0.0)
    assert [read(pulses, now, r1=f"{now // 9} ") for now in range(1, 40)] == [[]] * 39


def test_a_rank_that_left_is_not_frozen() -> None:
    pulses = Pulses([1], LIMIT, now=0.0)
    assert [read(pulses, now, r1=LEFT) for now in range(1, 40, 3)] == [[]] * 13


def test_after_a_pause_of_this_rank_the_others_have_the_whole_limit_again() -> None:
    """A job that was suspended as a whole (SLURM's gang scheduling, a laptop that slept) goes on."""
    pulses = Pulses([1], LIMIT, now=0.0)
    assert read(pulses, 1.0, r1="1 4") == []
    assert read(pulses, 3_600.0, r1="1 4") == [], "nobody counted while all were suspended"
    assert [read(pulses, 3_600.0 + late, r1="1 4") for late in (3, 6, 9, 12)] == [[], [], [], [1]], "and then it is frozen alone"


def test_steps_are_told_of_every_rank_and_ranks_are_counted_right() -> None:
    assert describe([1, 3], {0: 5, 1: 4, 2: 5, 3: None}, 600) == (
        "Ranks 1, 3 have not responded for 10 min 00 s: their processes are frozen or their machines are gone "
        "(last steps: none of rank 3, 4 of rank 1, 5 of ranks 0, 2)"
    )


class Calls(list[tuple[str, bool]]):
    """What `on_frozen` was called with."""

    def __call__(self, error: FrozenRankError, first: bool) -> None:
        self.append((str(error), first))


@pytest.fixture
def store() -> TCPStore:
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=10))


def heartbeat(store: TCPStore | None, rank: int, calls: Calls, *, limit_seconds: float = 0.5, **options: bool) -> Heartbeat:
    beat = Heartbeat(store, rank=rank, num_ranks=3, limit_seconds=limit_seconds, on_frozen=calls, **options)
    beat.step = lambda: 10 + rank
    return beat


def until(happened, seconds: float = 20.0) -> None:
    give_up = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < give_up
        time.sleep(0.02)


def test_the_remaining_ranks_name_the_frozen_one_and_one_of_them_writes(store: TCPStore) -> None:
    calls = [Calls(), Calls()]
    store.set("percasym/heartbeat/1", "1 11")  # Its only beat.
    with heartbeat(store, 0, calls[0]), heartbeat(store, 2, calls[1]):
        until(lambda: all(calls))
    said = (
        "Rank 1 has not responded for 0 s: its process is frozen or its machine is gone "
        "(last steps: 10 of rank 0, 11 of rank 1, 12 of rank 2)"
    )
    assert calls == [[(said, True)], [(said, False)]]


def test_ranks_that_leave_at_different_times_end_nobody(store: TCPStore) -> None:
    calls = Calls()
    with heartbeat(store, 0, calls, limit_seconds=2.0):
        with heartbeat(store, 1, calls, limit_seconds=2.0), heartbeat(store, 2, calls, limit_seconds=2.0):
            until(lambda: store.check([f"percasym/heartbeat/{rank}" for rank in range(3)]))
        time.sleep(3)
    assert calls == []
    assert store.get("percasym/heartbeat/0").decode() == LEFT


def test_ranks_that_have_not_begun_are_waited_for(store: TCPStore) -> None:
    calls = Calls()
    with heartbeat(store, 0, calls):
        time.sleep(1.5)  # Rank 1 loads its libraries.
    assert calls == []


@pytest.mark.parametrize("has_store", [True, False])
def test_it_is_off_without_a_limit_and_for_one_process(store: TCPStore, has_store: bool) -> None:
    before = threading.active_count()
    with heartbeat(store, 0, Calls(), limit_seconds=0.0) if has_store else heartbeat(None, 0, Calls()):
        assert threading.active_count() == before
    assert not store.check(["percasym/heartbeat/0"])


@pytest.fixture
def host() -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("hosted_by_rank_0", [True, False])
def test_rank_0_that_hosts_the_store_is_named_and_a_suspended_launcher_is_not(host: subprocess.Popen[str], hosted_by_rank_0: bool) -> None:
    """Where the launcher hosts the store, Ctrl-Z stops it alone: its ranks have sessions of their own, and go on."""
    assert host.stdout is not None
    store = TCPStore("127.0.0.1", int(host.stdout.readline()), is_master=False, timeout=timedelta(seconds=60))
    calls = [Calls(), Calls()]
    store.set("percasym/heartbeat/0", LEFT)
    with heartbeat(store, 1, calls[0], hosted_by_rank_0=hosted_by_rank_0), heartbeat(store, 2, calls[1], hosted_by_rank_0=hosted_by_rank_0):
        until(lambda: store.check(["percasym/heartbeat/1", "percasym/heartbeat/2"]))
        host.send_signal(signal.SIGSTOP)
        if hosted_by_rank_0:
            until(lambda: all(calls))
        else:
            time.sleep(2)
        host.send_signal(signal.SIGCONT)
        time.sleep(0.3)
    named = "Rank 0 has not responded for 0 s: its process is frozen or its machine is gone (last steps: none of rank 0"
    wanted = [(f"{named}, 11 of rank 1)", True)], [(f"{named}, 12 of rank 2)", False)]
    assert tuple(calls) == (wanted if hosted_by_rank_0 else ([], []))


class Gone:
    """A store that does not answer, or whose process has ended."""

    def __init__(self, error: type[Exception]) -> None:
        self.error, self.asked = error, 0

    def clone(self) -> Gone:
        return self

    def set(self, key: str, value: str) -> None:
        self.asked += 1
        raise self.error(key)

    def check(self, keys: list[str]) -> bool:
        raise self.error(keys[0])


@pytest.mark.parametrize("error", [DistNetworkError, DistStoreError])
def test_a_store_that_is_gone_ends_the_watch_and_one_that_is_slow_does_not(error: type[Exception]) -> None:
    store, calls = Gone(error), Calls()
    with heartbeat(store, 0, calls) as beat:
        if error is DistNetworkError:
            until(lambda: not beat._threads[0].is_alive())
            assert store.asked == 1
        else:
            until(lambda: store.asked > 2)
            assert beat._threads[0].is_alive()
        assert not beat._all_began([1, 2])
    assert calls == [], "nobody is frozen for that"


def test_a_rank_that_was_suspended_gives_rank_0_the_whole_limit_again(store: TCPStore, monkeypatch: pytest.MonkeyPatch) -> None:
    beat = heartbeat(store, 1, calls := Calls(), limit_seconds=10.0, hosted_by_rank_0=True)
    clock, waits = iter([0.0, 100.0, 104.0, 108.0, 111.0]), iter([False] * 4)
    monkeypatch.setattr("percasym.engine.heartbeat.time.monotonic", lambda: next(clock))
    monkeypatch.setattr(beat._ended, "wait", lambda seconds: next(waits))
    monkeypatch.setattr(beat._threads[0], "is_alive", lambda: True)
    beat._answered_at = 0.0
    beat._watch_host()  # At 100 it wakes up after a pause, and waits for more than 10 seconds from there.
    assert [said.startswith("Rank 0 has not responded for 10 s") for said, _ in calls] == [True]
