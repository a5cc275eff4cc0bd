"""Oracle: the perception label itself, the reference for every surrogate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from percasym.config.schema import one_of
from percasym.types import Grade

Grading = Literal["exact", "graded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """Reward percepts that equal p*, by the label.

    exact: a_p = 1 if percept = p*, else 0. graded: how much of p* was recovered (share of equal cells, F1 of edges).

    Source: the perception reward of arXiv:2605.29496. Assumes a label for every picture. Cannot be hacked, but `graded` pays most of
    its range for a guess: any Sudoku grid of size 4 that is half empty agrees with another in a third of its cells.
    """

    grading: Grading = "exact"
    """exact, or graded for partial credit."""

    def __post_init__(self) -> None:
        one_of("reward", Grading, grading=self.grading)

    def score_grade(self, grade: Grade) -> float:
        """a_p of one graded rollout."""
        return float(grade.perception) if self.grading == "exact" else grade.perception_graded
