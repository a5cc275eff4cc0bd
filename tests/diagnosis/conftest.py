"""Rollouts that no model sampled: how their rewards go together is chosen, so that each report can be checked."""

from collections.abc import Callable

import pytest

from percasym.types import Fault, Grade


def grade(perception: bool, outcome: bool, *, graded: float | None = None, faithful: bool | None = None) -> Grade:
    return Grade(
        perception=perception,
        perception_graded=float(perception) if graded is None else graded,
        outcome=outcome,
        faithful=faithful,
        faults=() if outcome else (Fault.no_answer,),
    )


@pytest.fixture
def make_grade() -> Callable[..., Grade]:
    """A verdict, `make_grade(perception, outcome, graded=..., faithful=...)`."""
    return grade
