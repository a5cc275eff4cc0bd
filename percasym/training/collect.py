"""Collection of one RL step: sample the prompts, grade the rollouts, compute the rewards."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from percasym import metrics
from percasym.config.paradigm import Rl
from percasym.config.sampling import Sampling
from percasym.models.base import Family
from percasym.objectives.advantages import uninformative
from percasym.rewards.base import Policy, Reward, Scores
from percasym.rollout.base import Gather, RolloutEngine
from percasym.tasks.base import Task, prompt_as_text, samples_of
from percasym.tokens.base import TokenWeights
from percasym.training.policy_queries import PolicyQueries
from percasym.training.reward_context import needs_policy, score
from percasym.training.rollout_batch import PromptGroup, RolloutBatch
from percasym.training.token_factors import rollout_factors


class SamplingEngine(Protocol):
    """The part of an engine that sampling uses."""

    rank: int
    num_ranks: int

    def gathered_weights(self) -> AbstractContextManager[PreTrainedModel]:
        """Within the context, the model with all its weights, for decoding."""
        ...

    def partitioned_weights(self) -> AbstractContextManager[tuple[PreTrainedModel, Gather | None]]:
        """Within the context, the model as ZeRO-3 has partitioned it, and how to complete one parameter."""
        ...

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Element-wise sum over ranks."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutCollector:
    """Samples the rollouts of one rank: whole groups, those of every `num_ranks`-th prompt of a step."""

    engine: SamplingEngine
    task: Task
    family: Family
    rollouts: RolloutEngine
    sampling: Sampling
    settings: Rl
    reward: str
    """Which of `rewards` is trained on."""
    rewards: Mapping[str, Reward]
    """All that are measured, by name."""
    split: str
    seed: int
    batch_size: int
    """Rows in one batch of a query to the policy."""
    tokens: TokenWeights | None = None
    """What weighs the advantages of single tokens."""
    reads_text: Callable[[int], bool] = lambda step: False
    """Whether the prompts of a step (from 0) have p* as text in place of the picture."""
    advance: Callable[[int], None] = lambda num_rows: None
    """Called with the number of rollouts that finished."""

    def collect(self, step: int, weight: float) -> RolloutBatch:
        """Sample and reward the prompts of a step (from 0); groups without variance in `resample_by` may be replaced."""
        settings = self.settings
        diagnosed = settings.diagnose_every > 0 and step % settings.diagnose_every == 0
        own, seconds = range(self.engine.rank, settings.batch_size, self.engine.num_ranks), list[float]()
        measured = settings.measures_after(step + 1)
        others = {
            name for name, other in self.rewards.items() if name != self.reward and (diagnosed or (measured and not needs_policy(other)))
        }
        text, queried = self.reads_text(step), any(needs_policy(self.rewards[name]) for name in {self.reward} | others)
        with self._weights(queried=queried or self.tokens is not None) as model:
            policy = PolicyQueries(
                model=model,
                family=self.family,
                max_new_tokens=self.sampling.max_new_tokens,
                batch_size=self.batch_size,
                temperature=self.sampling.temperature,
            )
            groups = self._groups([step * settings.batch_size + index for index in own], text)
            with timed(seconds):
                scores = self._scores(groups, policy, {self.reward})
            unused, resampled = settings.steps * settings.batch_size, 0  # The first index that no step uses.
            for attempt in range(settings.resample):
                constant = [i for i, useless in enumerate(self._uninformative(groups, scores[self.reward], weight)) if useless]
                if not constant:
                    break
                first = unused * (attempt + 1) + step * settings.batch_size
                fresh = self._groups([first + own[i] for i in constant], text)
                with timed(seconds):
                    of_fresh = self._scores(fresh, policy, {self.reward})
                for i, group, row in zip(constant, fresh, of_fresh[self.reward], strict=True):
                    groups[i], scores[self.reward][i] = group, row
                resampled += len(constant)
            with timed(seconds):
                scores |= self._scores(groups, policy, others)
                reasoning = self._reasoning(groups) if diagnosed else [None] * len(groups)
                factors, gain = None, None
                if self.tokens is not None:
                    factors, gain = rollout_factors([group.rollouts for group in groups], self.tokens, policy, self._of_all_ranks)
        return RolloutBatch(
            groups=groups,
            places=own,
            perception=self._of_all_ranks(rewards_of(scores[self.reward])),
            outcome=self._of_all_ranks(outcomes_of(groups)),
            scores=scores,
            reasoning=reasoning,
            factors=factors,
            gain=gain,
            resampled=resampled,
            reward_seconds=sum(seconds),
        )

    @contextmanager
    def _weights(self, *, queried: bool) -> Iterator[PreTrainedModel]:
        """The model for one collection, with the rollout engine refreshed.

        It is whole on every rank only if rewards query it, or the engine decodes with it.
        """
        if self.rollouts.streams and not queried:
            with self.engine.partitioned_weights() as (model, gather):
                self.rollouts.refresh(model, gather)
                yield model
        else:
            with self.engine.gathered_weights() as model:
                self.rollouts.refresh(model)
                yield model
        self.rollouts.release()

    def _groups(self, indices: Sequence[int], text: bool = False) -> list[PromptGroup]:
        """Graded rollouts of the prompts with these indices; with `text`, p* stands in place of the picture."""
        samples = samples_of(self.task, self.split, self.seed, indices)
        if text:
            samples = [replace(sample, prompt=prompt_as_text(sample)) for sample in samples]
        prompts, group_size = [sample.prompt for sample in samples], self.settings.group_size
        rows = [self.family.prompt(prompt) for prompt in prompts]
        sampled = self.rollouts.generate(prompts, group_size=group_size, seed=self.seed, prompt_rows=rows, advance=self.advance)
        return [
            PromptGroup(
                sample=sample,
                prompt_row=row,
                rollouts=rollouts,
                grades=[metrics.grade(self.task, sample.truth, rollout) for rollout in rollouts],
            )
            for sample, row, rollouts in zip(samples, rows, sampled, strict=True)
        ]

    def _reasoning(self, groups: Sequence[PromptGroup]) -> list[float | None]:
        """a_r of each prompt: share of right answers among `group_size` rollouts with p* forced as their perception span."""
        sampled = self.rollouts.generate(
            [group.sample.prompt for group in groups],
            group_size=self.settings.group_size,
            seed=self.seed,
            prompt_rows=[group.prompt_row for group in groups],
            forced=[group.sample.demonstration for group in groups],
            advance=self.advance,
        )
        return [
            fmean(metrics.grade(self.task, group.sample.truth, rollout).outcome for rollout in rollouts)
            for group, rollouts in zip(groups, sampled, strict=True)
        ]

    def _scores(self, groups: Sequence[PromptGroup], policy: Policy, names: set[str]) -> dict[str, Scores]:
        return {name: score(self.rewards[name], groups, self.task, policy) for name in sorted(names)}

    def _of_all_ranks(self, own: Tensor) -> Tensor:
        """[P, G] over all ranks, from the rows of this rank's prompts."""
        rows = torch.zeros(self.settings.batch_size, self.settings.group_size, dtype=own.dtype)
        rows[self.engine.rank :: self.engine.num_ranks] = own
        return self.engine.all_reduce_sum(rows)

    def _uninformative(self, groups: Sequence[PromptGroup], scores: Scores, weight: float) -> list[bool]:
        """For each group: does the reward that decides not vary within it?"""
        return uninformative(rewards_of(scores), outcomes_of(groups), weight, self.settings.resample_by).tolist()


def rewards_of(scores: Scores) -> Tensor:
    """[P, G] float64 rewards: a rollout without a score gets 0."""
    return torch.tensor([[0.0 if score is None else score for score in row] for row in scores], dtype=torch.float64)


def outcomes_of(groups: Sequence[PromptGroup]) -> Tensor:
    """[P, G] float64: a, the outcome reward."""
    return torch.tensor([[float(grade.outcome) for grade in group.grades] for group in groups], dtype=torch.float64)


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    """Append the duration of the block."""
    began = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - began)
