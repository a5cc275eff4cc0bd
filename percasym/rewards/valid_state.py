"""Validity: could this be a picture of the task at all?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from percasym.rewards.base import Group, RewardContext, Scores
from percasym.rewards.percepts import score_percepts


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidState:
    """Does the stated percept obey the invariants of its task?

    1 if `Skills.valid(percept)`, else 0. A Sudoku has as many givens as the task allows and exactly one solution; a graph is
    connected, with nodes, edges and chromatic number within the task's ranges.

    Source: a check that needs no reference; our form. Assumes that it is known how the pictures were made. It never looks at them:
    one valid percept, learned by heart, earns 1 everywhere.
    """

    asks_outcome: ClassVar[bool] = False
    asks_policy: ClassVar[bool] = False

    def score(self, groups: Sequence[Group], scene: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        return score_percepts(groups, scene.skills, lambda claims: [float(scene.skills.valid(claim.percept)) for claim in claims])
