"""Blindfold solver: an exact solver answers from the stated percept alone, and the task grades its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from percasym.rewards.base import Group, RewardContext, Scores
from percasym.rewards.percepts import StatedPercept, score_percepts
from percasym.tasks.base import Skill


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindfoldSolver:
    """Reward percepts from which an exact solver, without the picture, finds the right answer.

    1 if right(prompt, solve(stated percept)), else 0; a percept without solution scores 0.

    Source: a description is judged by what a reader can do with it, as in reinforced captioning (CapRL, arXiv:2509.22647), with
    an exact solver for the reader: its errors are the percept's. Assumes the outcome label of the prompt and a solver.
    A percept that is not p* may have the same solution (a Sudoku with a given left out), or be right by chance: a coloring is
    right for many graphs. Unless `only_valid`, the policy may do the reasoning first and state the solved grid.
    """

    needs_outcome: ClassVar[bool] = True
    needs_policy: ClassVar[bool] = False

    only_valid: bool = True
    """A percept that the task cannot show, such as a solved grid, scores 0."""

    @property
    def requires(self) -> tuple[Skill, ...]:
        """The skills of a task that it uses besides `parse` and `agreement`."""
        return ("solve", "valid") if self.only_valid else ("solve",)

    def score(self, groups: Sequence[Group], context: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        return score_percepts(groups, context.skills, lambda percepts: [float(self._sufficient(own, context)) for own in percepts])

    def _sufficient(self, own: StatedPercept, context: RewardContext) -> bool:
        if self.only_valid and not context.skills.valid(own.percept):
            return False
        answer = context.skills.solve(own.percept)
        return answer is not None and context.right(own.prompt, answer)
