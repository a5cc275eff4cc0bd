"""The policy in a blindfold: it answers from its own stated percept, told as text in place of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from percasym.rewards.base import Group, RewardContext, Scores
from percasym.rewards.percepts import Claim, score_percepts
from percasym.tasks.base import with_text_percept


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindfoldSelf:
    """Can the model itself answer from what it stated?

    1 if the greedy answer to (question, stated percept as text) is right for the prompt, else 0; a response with a fault has no answer.

    Source: the visual perception reward of Vision-SR1 (arXiv:2508.19652). Assumes the outcome label of the prompt, and a model that
    can reason from text: where it cannot, every percept scores 0. It rises with reasoning as well as with perception.
    Unless `only_valid`, the policy may state the solved grid and copy it.
    """

    asks_outcome: ClassVar[bool] = True
    asks_policy: ClassVar[bool] = True

    only_valid: bool = True
    """A percept that the task cannot show, such as a solved grid, scores 0."""

    def score(self, groups: Sequence[Group], scene: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        return score_percepts(groups, scene.skills, lambda claims: self._judge(claims, scene))

    def _judge(self, claims: Sequence[Claim], scene: RewardContext) -> list[float]:
        asked = [i for i, claim in enumerate(claims) if not self.only_valid or scene.skills.valid(claim.percept)]
        responses = scene.policy.answers([with_text_percept(claims[i].prompt, claims[i].percept) for i in asked]) if asked else []
        scores = [0.0] * len(claims)
        for i, response in zip(asked, responses, strict=True):
            if response.answer is not None and not response.faults:
                scores[i] = float(scene.right(claims[i].prompt, response.answer))
        return scores
