"""The stream of generated samples: a pure function of step and seed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import chain

import pytest

from percasym.data.generated import Generated
from percasym.models.base import Row
from percasym.types import SampleKey


class Keys:
    """A task whose sample is its key."""

    name = "keys"

    def sample(self, key: SampleKey) -> SampleKey:
        return key


class Lengths:
    """A family whose rows are as long as the key's hash says, and whose batch is the list of its rows."""

    def row(self, sample: SampleKey) -> Row:
        return Row(ids=[sample.index] * sample.rng().randint(1, 50), labels=[])

    def collate(self, rows: Sequence[Row]) -> list[Row]:
        return list(rows)


def stream(**options) -> Generated:
    return Generated(**{"task": Keys(), "family": Lengths(), "batch_size": 6, "micro_batch_size": 2, "seed": 0} | options)


def indices(window) -> list[int]:
    return [row.ids[0] for row in chain(*window)]


def test_each_sample_appears_once():
    seen = list(chain(*(indices(window) for window in stream().windows(0, 5))))
    assert sorted(seen) == list(range(30))


def test_a_window_is_the_same_whoever_asks_and_in_whatever_order():
    ahead = list(stream().windows(0, 5))
    assert [stream().window(step) for step in (4, 1)] == [ahead[4], ahead[1]]
    assert list(stream().windows(3, 5)) == ahead[3:]  # A resumed run.


def test_another_seed_or_split_gives_other_samples():
    lengths = [[len(row.ids) for row in chain(*other.window(0))] for other in (stream(), stream(seed=1), stream(split="base"))]
    assert lengths[0] != lengths[1] != lengths[2] != lengths[0]


def test_the_split_between_micro_batches_does_not_change_the_step():
    assert sorted(indices(stream(micro_batch_size=6).window(2))) == sorted(indices(stream(micro_batch_size=1).window(2)))


def test_rows_of_like_length_share_a_micro_batch():
    window = stream().window(0)
    assert [len(part) for part in window] == [2, 2, 2]
    lengths = [len(row.ids) for row in chain(*window)]
    assert lengths == sorted(lengths)


def test_windows_are_made_in_the_background_and_not_far_ahead():
    made = []

    class Watched(Lengths):
        def collate(self, rows):
            made.append(threading.current_thread().name)
            return list(rows)

    windows = stream(family=Watched(), micro_batch_size=6).windows(0, 50)
    next(windows)
    assert len(made) <= 3
    assert not any(name == threading.current_thread().name for name in made)
    windows.close()


def test_an_error_in_the_background_reaches_the_training():
    class Broken(Lengths):
        def row(self, sample):
            raise ValueError(f"sample {sample.index} is broken")

    with pytest.raises(ValueError, match="sample 0 is broken"):
        list(stream(family=Broken()).windows(0, 3))
