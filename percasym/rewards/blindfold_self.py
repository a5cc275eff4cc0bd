"""Blindfold self: the policy answers from its own stated percept, given as text in place of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from percasym.rewards.base import Group, RewardContext, Scores
from percasym.rewards.percepts import StatedPercept, score_percepts
from percasym.tasks.base import Skill, with_text_percept


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindfoldSelf:
    """Reward percepts from which the policy itself, without the picture, finds the right answer.

    1 if the greedy answer to (question, stated percept as text) is right for the prompt, else 0; a response with a fault has no answer.

    Source: the visual perception reward of Vision-SR1 (arXiv:2508.19652). Assumes the outcome label of the prompt, and a model that
    can reason from text: where it cannot, every percept scores 0. It rises with reasoning as well as with perception.
    Unless `only_valid`, the policy may state the solved grid and copy it.
    """

    needs_outcome: ClassVar[bool] = True
    needs_policy: ClassVar[bool] = True

    only_valid: bool = True
    """A percept that the task cannot show, such as a solved grid, scores 0."""

    @property
    def requires(self) -> tuple[Skill, ...]:
        """The skills of a task that it uses besides `parse` and `agreement`."""
        return ("valid",) if self.only_valid else ()

    def score(self, groups: Sequence[Group], context: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        return score_percepts(groups, context.skills, lambda percepts: self._outcomes(percepts, context))

    def _outcomes(self, percepts: Sequence[StatedPercept], context: RewardContext) -> list[float]:
        eligible = [i for i, own in enumerate(percepts) if not self.only_valid or context.skills.valid(own.percept)]
        prompts = [with_text_percept(percepts[i].prompt, percepts[i].percept) for i in eligible]
        scores = [0.0] * len(percepts)
        for i, response in zip(eligible, context.policy.answers(prompts) if prompts else [], strict=True):
            if response.answer is not None and not response.faults:
                scores[i] = float(context.right(percepts[i].prompt, response.answer))
        return scores
