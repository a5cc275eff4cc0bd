"""Contributions to a change of a, against potential outcomes: what a model would have answered to a right percept and to its own."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from percasym import statistics
from percasym.metrics import Contributions, contributed, contributions

Grades = tuple[float, float, float]
MODELS: list[Grades] = [(a, a_p, a_r) for a, a_p, a_r in product((0.0, 1.0), repeat=3)]
"""Grades (a, a_p, a_r) of a sample."""


@pytest.mark.parametrize("before", MODELS)
@pytest.mark.parametrize("after", MODELS)
def test_they_add_up_and_the_percepts_decide_which_they_are(before: Grades, after: Grades) -> None:
    found = contributions(before, after)
    assert found is not None
    (a, a_p, a_r), (a_after, a_p_after, a_r_after) = before, after
    assert sum(found) == a_after - a
    # Potential outcomes of the model that misreads: `a` with its own percept, `a_r` with p*.
    interventions = {(0, 1): a_r - a, (1, 0): a_after - a_r_after}
    assert found.via_perception == interventions.get((int(a_p), int(a_p_after)), 0.0)
    assert found.via_reasoning == (a_after - a if a_p and a_p_after else 0.0)
    assert found.otherwise == (0.0 if a_p or a_p_after else a_after - a)


@pytest.mark.parametrize("before", MODELS)
@pytest.mark.parametrize("after", MODELS)
def test_where_a_right_percept_is_answered_as_p_all_but_perception_is_the_change_of_a_r(before: Grades, after: Grades) -> None:
    """Greedy decoding gives one answer to p*, whether stated or forced."""
    if any(a_p and a != a_r for a, a_p, a_r in (before, after)) or not (before[1] or after[1]):
        return
    found = contributions(before, after)
    assert found is not None and found.via_reasoning + found.via_both == after[2] - before[2]


@pytest.mark.parametrize("before", MODELS)
@pytest.mark.parametrize("after", MODELS)
def test_the_way_back_has_the_same_ones_with_the_other_sign(before: Grades, after: Grades) -> None:
    there, back = contributions(before, after), contributions(after, before)
    assert there is not None and back == tuple(-one for one in there)


@given(st.lists(st.tuples(*[st.sampled_from([None, 0.0, 1.0])] * 3), min_size=2, max_size=2))
def test_a_sample_without_a_grade_has_none(grades: list[tuple[float | None, ...]]) -> None:
    before, after = grades
    assert (contributions(before, after) is None) == (None in (*before, *after))


def test_their_means_add_up_to_the_paired_gain_and_have_its_kind_of_interval() -> None:
    before, after = MODELS * 4, [*MODELS[3:], *MODELS[:3]] * 4
    puzzles, seeds = [str(place % 5) for place in range(32)], [place // 16 for place in range(32)]
    found = contributed(before, after, puzzles, seeds)
    gain = statistics.gain([one[0] for one in before], [one[0] for one in after], puzzles, seeds)
    assert tuple(found) == Contributions._fields
    assert sum(one.mean for one in found.values()) == pytest.approx(gain.mean, abs=1e-12)
    column = [parts.via_both for pair in zip(before, after, strict=True) if (parts := contributions(*pair))]
    assert found["via_both"] == statistics.change(column, puzzles, seeds, reach=1.0)
    assert contributed([(1.0, None, 1.0)], [(1.0, 1.0, 1.0)])["otherwise"].n == 0


def test_other_samples_and_other_grades_are_refused() -> None:
    with pytest.raises(ValueError, match="the same samples before and after, got 1 and 2"):
        contributed([(1, 1, 1)], [(1, 1, 1), (1, 1, 1)])
    with pytest.raises(ValueError, match=r"The grades of a sample are \(a, a_p, a_r\), got \(1, 0\)"):
        contributed([(1, 1, 1)], [(1, 0)])
