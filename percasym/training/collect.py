"""From a step's number to a round of rollouts: sample, grade, reward."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from statistics import fmean
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from percasym import metrics
from percasym.config.paradigm import Rl
from percasym.config.sampling import Sampling
from percasym.models.base import Family
from percasym.objectives.advantages import zero_variance
from percasym.rewards.base import Policy, Reward, Scores
from percasym.rollout.base import RolloutEngine
from percasym.tasks.base import Task
from percasym.training.policy_queries import PolicyQueries
from percasym.training.reward_context import needs_policy, score
from percasym.training.rollout_batch import PromptGroup, RolloutBatch
from percasym.types import SampleKey


class Holder(Protocol):
    """What sampling needs of an engine."""

    rank: int
    num_ranks: int

    def gathered_weights(self) -> AbstractContextManager[PreTrainedModel]:
        """While it lasts, the model with all its weights, for decoding."""
        ...

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Element-wise sum over ranks."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutCollector:
    """The rollouts of one rank: whole groups, every so-many-th prompt of a step."""

    engine: Holder
    task: Task
    family: Family
    rollouts: RolloutEngine
    sampling: Sampling
    settings: Rl
    reward: str
    """Which of `rewards` is learned from."""
    rewards: Mapping[str, Reward]
    """All that are watched."""
    split: str
    seed: int
    batch_size: int
    """Rows in one batch of what rewards ask the model."""
    advance: Callable[[int], None] = lambda num_rows: None
    """Hears of finished rollouts."""

    def gather(self, step: int, weight: float) -> RolloutBatch:
        """Sample the prompts of a step (from 0) and reward them; groups that teach nothing under `weight` may be sampled anew."""
        settings = self.settings
        asks = settings.diagnose_every > 0 and step % settings.diagnose_every == 0
        own, rewarding = range(self.engine.rank, settings.batch_size, self.engine.num_ranks), list[float]()
        with self.engine.gathered_weights() as model:
            self.rollouts.refresh(model)
            policy = PolicyQueries(
                model=model,
                family=self.family,
                max_new_tokens=self.sampling.max_new_tokens,
                batch_size=self.batch_size,
                temperature=self.sampling.temperature,
            )
            groups = self._groups([step * settings.batch_size + index for index in own])
            with clocked(rewarding):
                scored = self._scores(groups, policy, {self.reward})
            fresh, resampled = settings.steps * settings.batch_size, 0  # Indices that no step asks for.
            for attempt in range(settings.resample):
                dull = [i for i, same in enumerate(self._teaches_nothing(groups, scored[self.reward], weight)) if same]
                if not dull:
                    break
                first = fresh * (attempt + 1) + step * settings.batch_size
                better = self._groups([first + own[i] for i in dull])
                with clocked(rewarding):
                    rescored = self._scores(better, policy, {self.reward})
                for i, group, scores in zip(dull, better, rescored[self.reward], strict=True):
                    groups[i], scored[self.reward][i] = group, scores
                resampled += len(dull)
            with clocked(rewarding):
                others = {name for name, reward in self.rewards.items() if name != self.reward and (asks or not needs_policy(reward))}
                scored |= self._scores(groups, policy, others)
                reasoning = self._reasoning(groups) if asks else [None] * len(groups)
        return RolloutBatch(
            groups=groups,
            places=own,
            perception=self._everybody(earned(scored[self.reward])),
            outcome=self._everybody(outcomes(groups)),
            scores=scored,
            reasoning=reasoning,
            resampled=resampled,
            reward_seconds=sum(rewarding),
        )

    def _groups(self, indices: Sequence[int]) -> list[PromptGroup]:
        """Rollouts of the prompts with these indices, graded."""
        samples = [self.task.sample(SampleKey(task=self.task.name, split=self.split, seed=self.seed, index=index)) for index in indices]
        prompts, num_siblings = [sample.prompt for sample in samples], self.settings.group_size
        asked = [self.family.prompt(prompt) for prompt in prompts]
        siblings = self.rollouts.generate(prompts, group_size=num_siblings, seed=self.seed, asked=asked, advance=self.advance)
        return [
            PromptGroup(
                sample=sample,
                asked=row,
                rollouts=rollouts,
                grades=[metrics.grade(self.task, sample.truth, rollout) for rollout in rollouts],
            )
            for sample, row, rollouts in zip(samples, asked, siblings, strict=True)
        ]

    def _reasoning(self, groups: Sequence[PromptGroup]) -> list[float | None]:
        """a_r of each prompt: how often as many rollouts are right when p* is forced as their perception."""
        siblings = self.rollouts.generate(
            [group.sample.prompt for group in groups],
            group_size=self.settings.group_size,
            seed=self.seed,
            asked=[group.asked for group in groups],
            stated=[group.sample.truth for group in groups],
            advance=self.advance,
        )
        return [
            fmean(metrics.grade(self.task, group.sample.truth, rollout).outcome for rollout in rollouts)
            for group, rollouts in zip(groups, siblings, strict=True)
        ]

    def _scores(self, groups: Sequence[PromptGroup], policy: Policy, names: set[str]) -> dict[str, Scores]:
        return {name: score(self.rewards[name], groups, self.task, policy) for name in sorted(names)}

    def _everybody(self, own: Tensor) -> Tensor:
        """[P, G] over all ranks, from the rows of this rank's prompts."""
        rows = torch.zeros(self.settings.batch_size, self.settings.group_size, dtype=own.dtype)
        rows[self.engine.rank :: self.engine.num_ranks] = own
        return self.engine.all_reduce_sum(rows)

    def _teaches_nothing(self, groups: Sequence[PromptGroup], scores: Scores, weight: float) -> list[bool]:
        """Of each group: is its total reward the same for all siblings?"""
        total = weight * earned(scores) + (1 - weight) * outcomes(groups)
        return zero_variance(total).tolist()


def earned(scores: Scores) -> Tensor:
    """[P, G] float64: 0 where a reward says nothing."""
    return torch.tensor([[0.0 if score is None else score for score in row] for row in scores], dtype=torch.float64)


def outcomes(groups: Sequence[PromptGroup]) -> Tensor:
    """[P, G] float64: a."""
    return torch.tensor([[float(grade.outcome) for grade in group.grades] for group in groups], dtype=torch.float64)


@contextmanager
def clocked(seconds: list[float]) -> Iterator[None]:
    """Append how long the block took."""
    began = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - began)
