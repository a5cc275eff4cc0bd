"""The stream of generated samples: a pure function of step and seed."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import chain, combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from percasym.config.paradigm import rows_per_forward
from percasym.data.generated import Generated, buckets
from percasym.models.base import Row
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import Sample, SampleKey


class Keys:
    """A task whose sample is its key."""

    name = "keys"

    def sample(self, key: SampleKey) -> SampleKey:
        return key


class Lengths:
    """A family whose row lengths derive from the hash of the key, and whose batch is the list of its rows."""

    def row(self, sample: SampleKey) -> Row:
        return Row(ids=[sample.index] * sample.rng().randint(1, 50), labels=[])

    def collate(self, rows: Sequence[Row]) -> list[Row]:
        return list(rows)


def stream(**options) -> Generated:
    return Generated(**{"task": Keys(), "family": Lengths(), "batch_size": 6, "micro_batch_size": 2, "seed": 0} | options)


def on_ranks(num_ranks: int, step: int, **options) -> list[list]:
    """The window of each rank, with row lengths reduced over ranks."""
    lengths = []
    for rank in range(num_ranks):
        stream(rank=rank, num_ranks=num_ranks, longest=lambda own: lengths.append(own) or own, **options).window(step)
    longest = [max(place) for place in zip(*lengths, strict=True)]
    return [stream(rank=rank, num_ranks=num_ranks, longest=lambda own: longest, **options).window(step) for rank in range(num_ranks)]


def indices(window) -> list[int]:
    return [row.ids[0] for row in chain(*window)]


def test_each_sample_appears_once():
    found = list(chain(*(indices(window) for window in stream().windows(0, 5))))
    assert sorted(found) == list(range(30))


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


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 6])
def test_ranks_share_each_step_without_loss_or_repetition(num_ranks):
    shares = [indices(window) for window in on_ranks(num_ranks, 4, micro_batch_size=1)]
    assert {len(share) for share in shares} == {6 // num_ranks}
    assert sorted(chain(*shares)) == list(range(24, 30))


def test_a_rank_makes_no_row_of_another():
    made = []

    class Watched(Lengths):
        def row(self, sample: SampleKey) -> Row:
            made.append(sample.index)
            return super().row(sample)

    stream(family=Watched(), rank=1, num_ranks=3, micro_batch_size=1).window(1)
    assert made == [7, 10]


def test_a_micro_batch_is_never_larger_than_a_rank_s_share():
    assert [len(part) for part in stream(micro_batch_size=6, num_ranks=2).window(0)] == [3]
    assert [len(part) for part in stream(micro_batch_size=1, num_ranks=2).window(0)] == [1, 1, 1]


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 6, 12])
def test_a_step_keeps_its_rows_on_any_number_of_ranks_that_divides_it(num_ranks):
    """A run resumed on other ranks: its micro-batches of 4 need not divide the share of a rank, which makes more forwards or fewer."""
    shares = on_ranks(num_ranks, 4, batch_size=12, micro_batch_size=4)
    assert sorted(chain(*map(indices, shares))) == list(range(48, 60))
    assert {len(part) <= 4 for share in shares for part in share} == {True}
    assert len({len(share) for share in shares}) == 1


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((6, 2, 4), "paradigm.batch_size=6 cannot be dealt out evenly to 4 ranks. Start 3 (launch.nproc=3), or choose a multiple of 4."),
        ((2, 1, 4), "paradigm.batch_size=2 cannot be dealt out evenly to 4 ranks. Start 2 (launch.nproc=2), or choose a multiple of 4."),
    ],
)
def test_a_batch_that_ranks_cannot_share_is_refused(sizes, message):
    batch_size, micro_batch_size, num_ranks = sizes
    with pytest.raises(ValueError, match="paradigm") as caught:
        rows_per_forward(batch_size, micro_batch_size, num_ranks)
    assert str(caught.value) == message
    with pytest.raises(ValueError, match="paradigm"):
        stream(batch_size=batch_size, micro_batch_size=micro_batch_size, num_ranks=num_ranks)


@pytest.mark.parametrize("stop", [1, 2, 3, 9])
def test_windows_are_the_same_whether_made_ahead_or_not(stop):
    assert list(stream(ahead=False).windows(1, stop)) == list(stream(ahead=True).windows(1, stop))


def test_nothing_is_made_ahead_where_that_only_costs():
    made = []

    class Watched(Lengths):
        def collate(self, rows):
            made.append(threading.current_thread().name)
            return list(rows)

    windows = stream(family=Watched(), micro_batch_size=6, ahead=False).windows(0, 50)
    next(windows)
    assert made == [threading.current_thread().name]


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


def test_rows_are_cut_where_that_saves_more_padding_than_a_forward_costs():
    # With attention=400 a row of 400 costs 400 (1 + 1) = 800, one of 120 costs 120 (1 + 0.3) = 156. One forward: 4 * 800 = 3200;
    # cut before the last: 3 * 156 + 800 = 1268 and a forward more, which pays below 3200 - 1268 = 1932.
    lengths = [100, 110, 120, 400]
    assert buckets(lengths, most=4, overhead=1931, attention=400) == [slice(0, 3), slice(3, 4)]
    assert buckets(lengths, most=4, overhead=1933, attention=400) == [slice(0, 4)]
    assert buckets(lengths, most=2, overhead=0) == [slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 4)]


@given(
    lengths=st.lists(st.integers(1, 600), min_size=1, max_size=8).map(sorted),
    most=st.integers(1, 8),
    overhead=st.integers(0, 300),
    attention=st.integers(50, 5000),
)
def test_no_other_cuts_cost_less(lengths, most, overhead, attention):
    def cost(cuts):
        longest = [lengths[cut.stop - 1] for cut in cuts]
        return sum(overhead + (cut.stop - cut.start) * T * (1 + T / attention) for cut, T in zip(cuts, longest, strict=True))

    inner = range(1, len(lengths))
    every = (bounds for k in range(len(lengths)) for bounds in combinations(inner, k))
    ways = ([slice(a, b) for a, b in pairwise((0, *bounds, len(lengths)))] for bounds in every)
    allowed = [cuts for cuts in ways if max(cut.stop - cut.start for cut in cuts) <= most]
    found = buckets(lengths, most, overhead, attention)
    assert found in allowed
    assert cost(found) <= min(map(cost, allowed)) * (1 + 1e-9)


def test_a_window_of_unlike_lengths_is_cut_further_than_it_must_be():
    class Unlike(Lengths):
        def row(self, sample: SampleKey) -> Row:
            return Row(ids=[sample.index] * (1000 if sample.index % 3 == 0 else 10), labels=[])

    assert [[len(row.ids) for row in part] for part in stream(family=Unlike(), micro_batch_size=6).window(0)] == [[10] * 4, [1000] * 2]


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_all_ranks_make_as_many_forwards_of_as_many_rows(num_ranks):
    class Wild(Lengths):
        def row(self, sample: SampleKey) -> Row:
            return Row(ids=[sample.index] * 4 ** sample.rng().randint(1, 6), labels=[])

    shares = on_ranks(num_ranks, 0, family=Wild(), batch_size=24, micro_batch_size=4)
    shapes = [[len(part) for part in share] for share in shares]
    assert shapes == shapes[:1] * num_ranks
    assert len(shapes[0]) > 1


def test_the_asked_share_of_samples_gives_the_percept_as_text():
    task = Sudoku(size=4, givens=(9, 12))

    class Prompts:
        def row(self, sample: Sample) -> Row:
            given = sample.prompt.question.endswith(sample.truth)
            assert given is (sample.prompt.image is None)
            return Row(ids=[int(given)], labels=[])

        def collate(self, rows: Sequence[Row]) -> list[Row]:
            return list(rows)

    def texts(frac: float, **options) -> list[int]:
        return list(chain(*(indices(window) for window in stream(task=task, family=Prompts(), text_frac=frac, **options).windows(0, 40))))

    assert sum(texts(0.0)) == 0 and sum(texts(1.0)) == 240
    assert 40 < sum(texts(0.25)) < 80  # Binomial(240, 0.25): 60, standard deviation 6.7.
    # Which samples these are is a property of the sample, so neither the ranks nor a resumption change it.
    whole = [row.ids[0] for row in chain(*stream(task=task, family=Prompts(), text_frac=0.5).window(3))]
    ranks = on_ranks(2, 3, task=task, family=Prompts(), text_frac=0.5, micro_batch_size=3)
    parts = [row.ids[0] for windows in ranks for row in chain(*windows)]
    assert sum(whole) == sum(parts)
