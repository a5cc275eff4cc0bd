"""The parts of a change of a, against potential outcomes: what each model would have answered to a right and to its own percept."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from percasym.metrics import PATHS, Answers, attributed

GRADES = [Answers(*grades) for grades in product((0.0, 1.0), repeat=3)]


def answered(model: Answers, percept_is_right: bool) -> float:
    """a of `model` when it works from p*, or from its own wrong percept; p* is what a right percept is."""
    return model.outcome if model.perception == percept_is_right else model.reasoning


def possible(model: Answers) -> bool:
    """With a right percept the greedy answer and the answer to p* are one answer."""
    return not model.perception or model.outcome == model.reasoning


@pytest.mark.parametrize("before", GRADES)
@pytest.mark.parametrize("after", GRADES)
def test_the_parts_add_up_and_each_is_an_intervention(before: Answers, after: Answers) -> None:
    parts = attributed(before, after)
    assert parts is not None and len(parts) == len(PATHS)
    assert sum(parts) == after.outcome - before.outcome
    assert all(-1 <= part <= 1 for part in parts)
    if not (possible(before) and possible(after)):
        return
    # Change the percept alone, in the model that is known with both percepts; the rest is a change of model with p* given.
    if before.perception < after.perception:
        expected = (answered(before, True) - answered(before, False), answered(after, True) - answered(before, True), 0.0)
    elif before.perception > after.perception:
        expected = (answered(after, False) - answered(after, True), answered(after, True) - answered(before, True), 0.0)
    elif before.perception:
        expected = (0.0, answered(after, True) - answered(before, True), 0.0)
    else:
        expected = (0.0, 0.0, answered(after, False) - answered(before, False))
    assert parts == expected


@pytest.mark.parametrize("before", GRADES)
@pytest.mark.parametrize("after", GRADES)
def test_the_way_back_has_the_same_parts_with_the_other_sign(before: Answers, after: Answers) -> None:
    there, back = attributed(before, after), attributed(after, before)
    assert there is not None and back == tuple(-part for part in there)


@given(st.lists(st.tuples(*[st.sampled_from([None, 0.0, 1.0])] * 3), min_size=2, max_size=2))
def test_what_lacks_a_grade_has_no_parts(grades: list[tuple[float | None, float | None, float | None]]) -> None:
    before, after = (Answers(*one) for one in grades)
    assert (attributed(before, after) is None) == (None in (*before, *after))
