"""A perception reward without labels.

python train.py --config-dir examples/plugin/conf plugins=[clocks] paradigm=rl balance=fixed reward=nearest
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from percasym.rewards.base import Group, RewardContext, Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """Does at least one other rollout of the prompt state nearly the same percept?

    The largest agreement(other, own) over the other rollouts of the group whose percept can be read; 0 where its own cannot be read,
    None where no other can.

    Source: the example of a plug-in reward; our form. Assumes that a misreading is seldom repeated: two equal misreadings earn 1.
    """

    needs_outcome: ClassVar[bool] = False
    needs_policy: ClassVar[bool] = False

    def score(self, groups: Sequence[Group], context: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        return [self._group(group, context) for group in groups]

    def _group(self, group: Group, context: RewardContext) -> list[float | None]:
        skills = context.skills
        texts = [rollout.response.percept for rollout in group]
        percepts = [None if text is None else skills.parse(text) for text in texts]
        scores: list[float | None] = []
        for i, own in enumerate(percepts):
            others = [other for j, other in enumerate(percepts) if j != i and other is not None]
            scores.append(0.0 if own is None else max((skills.agreement(other, own) for other in others), default=None))
        return scores
