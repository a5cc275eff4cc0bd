"""Faithfulness: does the answer follow from what was stated?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from percasym.rewards.base import Group, RewardContext, Scores, Skills
from percasym.rewards.percepts import Claim, score_rollouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Faithful:
    """Is the answer right for the stated percept?

    1 if verify(stated percept, answer), else 0; a response with any fault has no answer.

    Source: consistency of description and answer; our form. Assumes that the answer was found from the picture itself, so that it
    fits the stated percept only where that is true. Hackable alone: it rewards reasoning more than seeing, and the easiest percept
    (a solved grid, copied as the answer) earns 1.
    """

    asks_outcome: ClassVar[bool] = False
    asks_policy: ClassVar[bool] = False

    def score(self, groups: Sequence[Group], scene: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        return score_rollouts(groups, scene.skills, lambda claims: [float(_follows(claim, scene.skills)) for claim in claims])


def _follows(claim: Claim, skills: Skills) -> bool:
    response = claim.rollout.response
    return response.answer is not None and not response.faults and skills.verify(claim.percept, response.answer)
