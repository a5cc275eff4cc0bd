"""The inputs of each perception reward, restricted to what it declares: grades only for a labelled one, the policy only if needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from percasym.rewards.base import Labelled, Policy, Reward, RewardContext, Scores, Surrogate
from percasym.tasks.base import Task
from percasym.training.rollout_batch import PromptGroup
from percasym.types import Prompt, Response, Rollout, SampleKey


def score(reward: Reward, groups: Sequence[PromptGroup], task: Task, policy: Policy) -> Scores:
    """The scores of a reward, in the shape of `groups`.

    Raises PermissionError when a surrogate uses what it does not declare.
    """
    if isinstance(reward, Labelled):
        return [[reward.score_grade(grade) for grade in group.grades] for group in groups]
    truths = {group.sample.prompt.key: group.sample.truth for group in groups}

    def right(prompt: Prompt, answer: str) -> bool:
        if not reward.needs_outcome:
            _refuse(reward, "needs_outcome")
        return task.right(prompt.key, truths[prompt.key], answer)

    allowed = policy if reward.needs_policy else ForbiddenPolicy(reward=reward)
    context = RewardContext(skills=TruthFree(_task=task), right=right, policy=allowed)
    return reward.score([group.rollouts for group in groups], context)


def needs_policy(reward: Reward) -> bool:
    """Whether a reward costs extra passes of the model."""
    return not isinstance(reward, Labelled) and reward.needs_policy


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthFree:
    """The skills of a task, without access to its samples and labels."""

    _task: Task

    def parse(self, text: str) -> str | None:
        """The canonical form of a stated percept; None when it is not well formed."""
        return self._task.parse(text)

    def agreement(self, truth: str, stated: str) -> float:
        """How much two canonical percepts have in common, in [0, 1]."""
        return self._task.agreement(truth, stated)

    def verify(self, percept: str, answer: str) -> bool:
        """Is `answer` a correct solution of `percept`?"""
        return self._task.verify(percept, answer)

    def draw(self, percept: str, key: SampleKey) -> bytes:
        """The picture of a canonical percept as PNG bytes; the key decides its appearance only."""
        return self._task.draw(percept, key)

    def solve(self, percept: str) -> str | None:
        """An exact solution of a canonical percept, or None when there is none."""
        return self._task.solve(percept)

    def valid(self, percept: str) -> bool:
        """Can the task, as configured, generate a picture of this percept?"""
        return self._task.valid(percept)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForbiddenPolicy:
    """The policy for a reward without `needs_policy`: every query raises PermissionError."""

    reward: Surrogate

    def answers(self, prompts: Sequence[Prompt]) -> list[Response]:
        """Raises PermissionError."""
        _refuse(self.reward, "needs_policy")

    def percepts(self, prompts: Sequence[Prompt]) -> list[str | None]:
        """Raises PermissionError."""
        _refuse(self.reward, "needs_policy")

    def logprobs(self, prompts: Sequence[Prompt], rollouts: Sequence[Rollout]) -> list[list[float]]:
        """Raises PermissionError."""
        _refuse(self.reward, "needs_policy")


def _refuse(reward: Surrogate, permission: str) -> NoReturn:
    raise PermissionError(f"{type(reward).__name__} looked at what only a reward with {permission} = True may see. Declare it there.")
