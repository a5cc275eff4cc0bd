"""Faithfulness: whether the answer follows from the stated percept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from percasym.rewards.base import Group, RewardContext, Scores, Skills
from percasym.rewards.percepts import StatedPercept, score_rollouts
from percasym.tasks.base import Skill


@dataclass(frozen=True, slots=True, kw_only=True)
class Faithful:
    """Reward responses whose answer solves the percept that they state.

    1 if verify(stated percept, answer), else 0; a response with any fault has no answer.

    Source: consistency of description and answer; our form. Assumes that the answer was found from the picture itself, so that it
    fits the stated percept only where that is true. Easy to hack alone: it rewards reasoning more than perception, and the easiest percept
    (a solved grid, copied as the answer) scores 1.
    """

    needs_outcome: ClassVar[bool] = False
    needs_policy: ClassVar[bool] = False
    requires: ClassVar[tuple[Skill, ...]] = ("verify",)

    def score(self, groups: Sequence[Group], context: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        return score_rollouts(groups, context.skills, lambda percepts: [float(_follows(own, context.skills)) for own in percepts])


def _follows(own: StatedPercept, skills: Skills) -> bool:
    response = own.rollout.response
    return response.answer is not None and not response.faults and skills.verify(own.percept, response.answer)
