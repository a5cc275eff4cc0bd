"""What one round of sampling brings: rollouts, their rewards, and the micro-batches that they are learned from.

Shapes: P prompts of the step over all ranks, G siblings, R = P * G rollouts in reading order, B rows and T tokens of a micro-batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from percasym.config.paradigm import Rl
from percasym.models.base import Batch, Family, Row
from percasym.objectives.advantages import group_normalized, mixed, on_spans
from percasym.objectives.coefficients import span_counts
from percasym.rewards.base import Scores
from percasym.training.policy_queries import completed
from percasym.types import Grade, Rollout, Sample, Span

SpanAdvantages = Mapping[Span, Tensor]
"""[R] for each span: the advantage of its tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptGroup:
    """One prompt, its siblings and the verdicts on them."""

    sample: Sample
    asked: Row
    """The prompt as tokens."""
    rollouts: Sequence[Rollout]
    grades: Sequence[Grade]


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch:
    """Rollouts that go through the model together."""

    batch: Batch
    rows: Tensor
    """[B] which of the R rollouts each row is."""
    sampled: Tensor
    """[B, T] log-probability of each token when it was sampled; zero elsewhere."""

    def tokens(self, advantages: SpanAdvantages) -> Tensor:
        """[B, T] the advantage of each token; zero outside the completions."""
        return on_spans(self.batch.labels, advantages[Span.perception][self.rows], advantages[Span.reasoning][self.rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutBatch:
    """Everything that one rank sampled for one step."""

    groups: Sequence[PromptGroup]
    """Those of this rank; the rewards below are everybody's, for some advantages are relative to all of them."""
    places: Sequence[int]
    """Which of the P prompts each of `groups` is."""
    perception: Tensor
    """[P, G] float64: the perception reward, 0 where it says nothing."""
    outcome: Tensor
    """[P, G] float64: a, is the answer right?"""
    scores: Mapping[str, Scores]
    """Every reward that was asked of this rank's groups, by name, trained on or not."""
    reasoning: Sequence[float | None]
    """a_r of this rank's prompts: how often the answer is right when p* was given; None where it was not measured."""
    resampled: int = 0
    """Prompts that were replaced because their group had one reward throughout."""
    reward_seconds: float = 0.0
    """How long rewards and diagnoses took, of all that it took to make this round."""

    def verdicts(self) -> list[tuple[Sequence[Grade], Mapping[str, Sequence[float | None]], float | None]]:
        """Of each group of this rank, without its rollouts: grades, the scores of each reward, a_r."""
        scores = [{name: rows[i] for name, rows in self.scores.items()} for i in range(len(self.groups))]
        return [(group.grades, named, reasoning) for group, named, reasoning in zip(self.groups, scores, self.reasoning, strict=True)]

    def counts(self, settings: Rl) -> Tensor:
        """[2] int64: perception and reasoning tokens of this rank's rollouts, those that teach nothing included."""
        return span_counts(torch.tensor([rollout.labels]) for rollout in self._rollouts if _learned(rollout, settings))

    def window(self, family: Family, settings: Rl, rows_per_forward: int, advantages: SpanAdvantages) -> list[MicroBatch]:
        """The micro-batches to learn `advantages` from, rollouts of like length together.

        A rollout without an advantage has no gradient and is left out, unless a KL term wants every token. All ranks keep as
        many as the one with the most to learn from, since under ZeRO they must make the same calls.
        """
        asked = [group.asked for group in self.groups for _ in group.rollouts]
        place = [place * settings.group_size + sibling for place in self.places for sibling in range(settings.group_size)]
        speaks = (advantages[Span.perception] != 0) | (advantages[Span.reasoning] != 0) | (settings.kl > 0)  # [R]
        num_ranks = settings.batch_size // len(self.groups)
        most = int(speaks.view(-1, num_ranks, settings.group_size).sum((0, 2)).max())
        kept = sorted(range(len(place)), key=lambda i: not speaks[place[i]])[: max(1, most)]
        rows = {i: completed(asked[i], self._rollouts[i], learned=_learned(self._rollouts[i], settings)) for i in kept}
        order = sorted(kept, key=lambda i: len(rows[i].ids))
        window = []
        for start in range(0, len(order), rows_per_forward):
            chosen = order[start : start + rows_per_forward]
            batch = family.collate([rows[i] for i in chosen])
            sampled = torch.zeros(batch.labels.shape)
            for row, i in enumerate(chosen):
                logprobs, first = self._rollouts[i].completion.logprobs, len(asked[i].ids)
                assert logprobs is not None, "a rollout engine gives the log-probability of each token"
                sampled[row, first : first + len(logprobs)] = torch.tensor(logprobs)
            window.append(MicroBatch(batch=batch, rows=torch.tensor([place[i] for i in chosen]), sampled=sampled))
        return window

    @property
    def _rollouts(self) -> Sequence[Rollout]:
        return [rollout for group in self.groups for rollout in group.rollouts]

    def advantages(self, settings: Rl, weight: float) -> SpanAdvantages:
        """What w makes of both rewards: one advantage for all tokens, or routed: each span its own reward's."""
        if settings.route:
            own = self.components(settings)
            return {span: part * own[span][span] for span, part in ((Span.perception, weight), (Span.reasoning, 1 - weight))}
        one = mixed(self.perception, self.outcome, weight, settings.mixing, settings.normalize).flatten()
        return dict.fromkeys(Span, one)

    def components(self, settings: Rl) -> Mapping[Span, SpanAdvantages]:
        """The advantages of either reward alone: what the two policy gradients that NGDiff balances are made of."""
        seen, right = (group_normalized(rewards, settings.normalize).flatten() for rewards in (self.perception, self.outcome))
        if settings.route:
            nothing = torch.zeros_like(seen)
            return {
                Span.perception: {Span.perception: seen, Span.reasoning: nothing},
                Span.reasoning: {Span.perception: nothing, Span.reasoning: right},
            }
        return {Span.perception: dict.fromkeys(Span, seen), Span.reasoning: dict.fromkeys(Span, right)}

    def blended(self, settings: Rl, weight: float) -> SpanAdvantages:
        """The advantages whose policy gradient is w times that of the perception reward plus 1 - w times that of the outcome."""
        seen, right = self.components(settings).values()
        return {span: weight * seen[span] + (1 - weight) * right[span] for span in Span}


def _learned(rollout: Rollout, settings: Rl) -> bool:
    """Is this rollout part of the loss?"""
    return rollout.completion.finished or settings.overlong == "score"
