"""A round as it is kept: the groups that frozen rollouts are made of."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from percasym.diagnosis.rollout_file import RolloutGroup
from percasym.rewards.base import Labelled, Reward
from percasym.training.rollout_batch import RolloutBatch


def recorded(experience: RolloutBatch, rewards: Mapping[str, Reward], advantages: Tensor | None = None) -> list[RolloutGroup]:
    """This rank's groups with everything that was said about them; `advantages` [P * G] are those of the whole step."""
    made = None if advantages is None else advantages.view_as(experience.outcome).tolist()
    return [
        RolloutGroup(
            truth=group.sample.truth,
            puzzle=group.sample.puzzle,
            rollouts=tuple(group.rollouts),
            grades=tuple(group.grades),
            rewards={name: tuple(scores[i]) for name, scores in experience.scores.items()},
            labelled=frozenset(name for name in experience.scores if isinstance(rewards[name], Labelled)),
            advantages=None if made is None else tuple(made[place]),
            reasoning=experience.reasoning[i],
        )
        for i, (place, group) in enumerate(zip(experience.places, experience.groups, strict=True))
    ]
