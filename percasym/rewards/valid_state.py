"""Validity: whether the stated percept obeys the invariants of its task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from percasym.rewards.base import Group, RewardContext, Scores
from percasym.rewards.percepts import score_percepts
from percasym.tasks.base import Skill


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidState:
    """Reward percepts that the task could have generated.

    1 if `Skills.valid(percept)`, else 0. A Sudoku has as many givens as the task allows and exactly one solution; a graph is
    connected, with nodes, edges and chromatic number within the task's ranges.

    Source: a check that needs no reference; our form. Assumes that the generator of the pictures is known. It never reads the picture:
    one memorised valid percept scores 1 everywhere.
    """

    needs_outcome: ClassVar[bool] = False
    needs_policy: ClassVar[bool] = False
    requires: ClassVar[tuple[Skill, ...]] = ("valid",)

    def score(self, groups: Sequence[Group], context: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        return score_percepts(groups, context.skills, lambda percepts: [float(context.skills.valid(own.percept)) for own in percepts])
