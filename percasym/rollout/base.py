"""What a rollout engine is: prompts in, groups of sampled completions out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from transformers import PreTrainedModel

from percasym.models.base import Row
from percasym.spans.codec import Codec
from percasym.types import UNSUPERVISED, Completion, Prompt, Rollout


class RolloutEngine(Protocol):
    """Samples from the weights it was last shown."""

    def refresh(self, model: PreTrainedModel) -> None:
        """Sample from these weights from now on."""
        ...

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        group_size: int,
        seed: int,
        asked: Sequence[Row] | None = None,
        stated: Sequence[str] | None = None,
        advance: Callable[[int], None] = lambda num_rows: None,
    ) -> list[list[Rollout]]:
        """`group_size` rollouts of each prompt, with the log-probability of each token; `advance` hears of finished rows.

        A rollout is a function of the weights, its prompt, `seed` and its place in the group, whatever else is in the batch.
        `asked` are the prompts as tokens, where the caller has them already.
        With `stated`, this percept of each prompt is forced as the perception of its rollouts, which then have no log-probabilities.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ForcedPrefix:
    """A prompt, and the tokens that its rollouts are made to begin with."""

    prompt: Prompt
    forced: tuple[int, ...]

    @classmethod
    def all(cls, codec: Codec, prompts: Sequence[Prompt], stated: Sequence[str] | None) -> list[ForcedPrefix]:
        """One for each prompt; the whole perception span of each percept in `stated` is forced."""
        spans = [()] * len(prompts) if stated is None else [tuple(codec.encode(codec.grammar.perception(percept))) for percept in stated]
        return [cls(prompt=prompt, forced=span) for prompt, span in zip(prompts, spans, strict=True)]

    def row(self, asked: Row) -> Row:
        """The prompt as tokens, `asked`, and what is forced after it."""
        return replace(asked, ids=(*asked.ids, *self.forced), labels=(*asked.labels, *[UNSUPERVISED] * len(self.forced)))

    def rollout(self, codec: Codec, sampled: Completion) -> Rollout:
        """What was sampled after it, read as one response."""
        if self.forced:
            sampled = replace(sampled, ids=(*self.forced, *sampled.ids), logprobs=None)
        return codec.rollout(self.prompt, sampled)
