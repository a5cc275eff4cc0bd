"""An exact solver in a blindfold: it answers from the stated percept alone, and the task says whether that is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from percasym.rewards.base import Group, RewardContext, Scores
from percasym.rewards.percepts import Claim, score_percepts


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindfoldSolver:
    """Does the stated percept hold all that an exact solver needs?

    1 if right(prompt, solve(stated percept)), else 0; a percept without solution scores 0.

    Source: a description is judged by what a reader can do with it, as in reinforced captioning (CapRL, arXiv:2509.22647), with
    an exact solver for the reader: its errors are the percept's. Assumes the outcome label of the prompt and a solver.
    A percept that is not p* may have the same solution (a Sudoku with a given left out), or be right by chance: a coloring is
    right for many graphs. Unless `only_valid`, the policy may do the reasoning first and state the solved grid.
    """

    asks_outcome: ClassVar[bool] = True
    asks_policy: ClassVar[bool] = False

    only_valid: bool = True
    """A percept that the task cannot show, such as a solved grid, scores 0."""

    def score(self, groups: Sequence[Group], scene: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        return score_percepts(groups, scene.skills, lambda claims: [float(self._suffices(claim, scene)) for claim in claims])

    def _suffices(self, claim: Claim, scene: RewardContext) -> bool:
        if self.only_valid and not scene.skills.valid(claim.percept):
            return False
        answer = scene.skills.solve(claim.percept)
        return answer is not None and scene.right(claim.prompt, answer)
