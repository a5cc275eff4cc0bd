"""The rollouts of one RL step: their rewards, advantages and micro-batches, and the records written of them.

Shapes: P prompts of the step over all ranks, G rollouts of each, R = P * G rollouts in order of prompts, B rows and T tokens of a
micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from percasym.config.paradigm import Rl
from percasym.diagnosis.rollout_file import RolloutGroup
from percasym.models.base import Batch, Family, Row
from percasym.objectives.advantages import group_normalized, mixed, on_spans
from percasym.objectives.coefficients import span_counts
from percasym.rewards.base import Labelled, Reward, Scores
from percasym.types import UNSUPERVISED, Grade, Rollout, Sample, Span

SpanAdvantages = Mapping[Span, Tensor]
"""[R] for each span: the advantage of its tokens in each rollout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptGroup:
    """One prompt with its graded rollouts."""

    sample: Sample
    prompt_row: Row
    """The prompt as tokens."""
    rollouts: Sequence[Rollout]
    grades: Sequence[Grade]


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Rollouts of one forward pass."""

    batch: Batch
    rows: Tensor
    """[B] index of each row among the R rollouts."""
    sampled: Tensor
    """[B, T] log-probability of each token under the policy that sampled it; zero elsewhere."""
    pictures: Sequence[int] | None = None
    """[B] which prompt each row's picture is of; None where a row has none, or their sizes differ."""
    factors: Tensor | None = None
    """[B, T] what multiplies the advantage of each token; None: nothing."""

    def tokens(self, advantages: SpanAdvantages) -> Tensor:
        """[B, T] the advantage of each token; zero outside the completions."""
        own = on_spans(self.batch.labels, advantages[Span.perception][self.rows], advantages[Span.reasoning][self.rows])
        return own if self.factors is None else own * self.factors


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutBatch:
    """The rollouts that one rank sampled for one step, with the rewards of all ranks."""

    groups: Sequence[PromptGroup]
    """Those of this rank."""
    places: Sequence[int]
    """[len(groups)] index of each group among the P prompts of the step."""
    perception: Tensor
    """[P, G] float64, of all ranks: the perception reward, 0 where it has no score."""
    outcome: Tensor
    """[P, G] float64, of all ranks: a, is the answer right?"""
    scores: Mapping[str, Scores]
    """Every reward that was measured on this rank's groups, by name, trained on or not."""
    reasoning: Sequence[float | None]
    """a_r of this rank's prompts: share of right answers when p* is given; None where it was not measured."""
    factors: Sequence[NDArray[np.float64]] | None = None
    """What multiplies the advantage of each token, for each of this rank's rollouts; None: nothing."""
    gain: float | None = None
    """What the picture adds to a token on average, over all ranks, in the units of `percasym.tokens`; None where it is not measured."""
    resampled: int = 0
    """Prompts that were replaced because their group had zero reward variance."""
    reward_seconds: float = 0.0
    """Seconds spent on rewards and diagnoses, of those spent on the whole batch."""

    def verdicts(self) -> list[tuple[Sequence[Grade], Mapping[str, Sequence[float | None]], float | None]]:
        """For each group of this rank, without its rollouts: grades, scores of each reward, a_r."""
        scores = [{name: rows[i] for name, rows in self.scores.items()} for i in range(len(self.groups))]
        return [(group.grades, named, reasoning) for group, named, reasoning in zip(self.groups, scores, self.reasoning, strict=True)]

    def records(self, rewards: Mapping[str, Reward], advantages: Tensor | None = None) -> list[RolloutGroup]:
        """This rank's groups as `percasym.diagnosis` writes and reads them; `advantages` [R] are those of the whole step."""
        of_prompts = None if advantages is None else advantages.view_as(self.outcome).tolist()
        return [
            RolloutGroup(
                truth=group.sample.truth,
                puzzle=group.sample.puzzle,
                rollouts=tuple(group.rollouts),
                grades=tuple(group.grades),
                rewards={name: tuple(scores[i]) for name, scores in self.scores.items()},
                labelled=frozenset(name for name in self.scores if isinstance(rewards[name], Labelled)),
                advantages=None if of_prompts is None else tuple(of_prompts[place]),
                reasoning=self.reasoning[i],
            )
            for i, (place, group) in enumerate(zip(self.places, self.groups, strict=True))
        ]

    def counts(self, settings: Rl) -> Tensor:
        """[2] int64: perception and reasoning tokens of this rank's rollouts, those without an advantage included."""
        return span_counts(torch.tensor([rollout.labels]) for rollout in self._rollouts if _in_loss(rollout, settings))

    def window(self, family: Family, settings: Rl, rows_per_forward: int, advantages: SpanAdvantages) -> list[MicroBatch]:
        """The micro-batches of an update with these advantages; rollouts of similar length share one.

        A rollout whose advantages are zero has no gradient and is left out, unless there is a KL term. All ranks keep as many rollouts as
        the rank with the most, because under ZeRO they must make the same number of forwards.
        """
        prompts = [group.prompt_row for group in self.groups for _ in group.rollouts]
        place = [place * settings.group_size + i for place in self.places for i in range(settings.group_size)]
        rollouts = self._rollouts
        has_gradient = (advantages[Span.perception] != 0) | (advantages[Span.reasoning] != 0) | (settings.kl > 0)  # [R]
        num_ranks = settings.batch_size // len(self.groups)
        most = int(has_gradient.view(-1, num_ranks, settings.group_size).sum((0, 2)).max())
        left_out = (~has_gradient).tolist()
        kept = sorted(range(len(place)), key=lambda i: left_out[place[i]])[: max(1, most)]
        rows = {i: _row(prompts[i], rollouts[i], settings) for i in kept}
        order = sorted(kept, key=lambda i: len(rows[i].ids))
        window = []
        for start in range(0, len(order), rows_per_forward):
            chosen = order[start : start + rows_per_forward]
            batch = family.collate([rows[i] for i in chosen])
            sampled = torch.zeros(batch.labels.shape)
            factors = None if self.factors is None else torch.ones(batch.labels.shape)
            for row, i in enumerate(chosen):
                logprobs, first = rollouts[i].completion.logprobs, len(prompts[i].ids)
                assert logprobs is not None, "a rollout engine gives the log-probability of each token"
                sampled[row, first : first + len(logprobs)] = torch.tensor(logprobs)
                if factors is not None and self.factors is not None:
                    factors[row, first : first + len(logprobs)] = torch.tensor(self.factors[i], dtype=torch.float32)
            rows_of_chosen = torch.tensor([place[i] for i in chosen])
            pictures = [place[i] // settings.group_size for i in chosen] if _of_one_size([prompts[i] for i in chosen]) else None
            window.append(MicroBatch(batch=batch, rows=rows_of_chosen, sampled=sampled, pictures=pictures, factors=factors))
        return window

    def advantages(self, settings: Rl, weight: float) -> SpanAdvantages:
        """The advantages of R = w a_p + (1 - w) a: one for all tokens of a rollout, or, with `route`, each span that of its own reward."""
        if settings.route:
            own = self.components(settings)
            return {span: part * own[span][span] for span, part in ((Span.perception, weight), (Span.reasoning, 1 - weight))}
        one = mixed(self.perception, self.outcome, weight, settings.mixing, settings.normalize).flatten()
        return dict.fromkeys(Span, one)

    def components(self, settings: Rl) -> Mapping[Span, SpanAdvantages]:
        """The advantages of each reward alone; their two policy gradients are what a gradient-based strategy balances."""
        perception, outcome = (group_normalized(rewards, settings.normalize).flatten() for rewards in (self.perception, self.outcome))
        if settings.route:
            zero = torch.zeros_like(perception)
            return {
                Span.perception: {Span.perception: perception, Span.reasoning: zero},
                Span.reasoning: {Span.perception: zero, Span.reasoning: outcome},
            }
        return {Span.perception: dict.fromkeys(Span, perception), Span.reasoning: dict.fromkeys(Span, outcome)}

    def num_taught(self, advantages: SpanAdvantages) -> int:
        """How many of the P groups have an advantage other than 0, and so a gradient."""
        any_span = (advantages[Span.perception] != 0) | (advantages[Span.reasoning] != 0)  # [R]
        return int(any_span.view_as(self.outcome).any(1).sum())

    def blended(self, settings: Rl, weight: float) -> SpanAdvantages:
        """The advantages whose policy gradient is w times that of the perception reward plus 1 - w times that of the outcome."""
        perception, outcome = self.components(settings).values()
        return {span: weight * perception[span] + (1 - weight) * outcome[span] for span in Span}

    @property
    def _rollouts(self) -> Sequence[Rollout]:
        return [rollout for group in self.groups for rollout in group.rollouts]


def _in_loss(rollout: Rollout, settings: Rl) -> bool:
    """Whether the loss includes this rollout: all of them, or, with `overlong=mask`, those that ended before the token limit."""
    return rollout.completion.finished or settings.overlong == "score"


def _row(prompt: Row, rollout: Rollout, settings: Rl) -> Row:
    """A prompt followed by a rollout's own tokens, labelled by span; unsupervised where the loss leaves the rollout out."""
    labels = rollout.labels if _in_loss(rollout, settings) else [UNSUPERVISED] * len(rollout.labels)
    return prompt.followed_by(rollout.completion.ids, labels)


def _of_one_size(prompts: Sequence[Row]) -> bool:
    """Whether each prompt has a picture, and all pictures have one size: as many rows of each tensor, and equal grids."""
    shapes = {tuple((name, tuple(value.shape)) for name, value in prompt.inputs.items()) for prompt in prompts}
    grids = {tuple(value.flatten().tolist()) for prompt in prompts for value in prompt.inputs.values() if not value.is_floating_point()}
    return len(shapes) == 1 and len(grids) <= 1 and all(prompt.inputs for prompt in prompts)
