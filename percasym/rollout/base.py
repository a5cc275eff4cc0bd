"""The interface of a rollout engine: prompts in, groups of sampled completions out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

from torch import Tensor
from transformers import PreTrainedModel

from percasym.models.base import Row
from percasym.spans.codec import Codec
from percasym.types import UNSUPERVISED, Completion, Demonstration, Prompt, Rollout

Gather = Callable[[Tensor], AbstractContextManager[object]]
"""A context in which a parameter that ZeRO-3 has partitioned is complete on this rank."""


class WeightsHolder(Protocol):
    """Something that decodes with the weights of the last `refresh`."""

    streams: ClassVar[bool]
    """Whether `refresh` reads one parameter after the other and keeps its own copy, so that ZeRO-3 need not gather the whole model."""

    def refresh(self, model: PreTrainedModel, gather: Gather | None = None) -> None:
        """Use the current weights of `model` from now on; where `streams`, a partitioned parameter is completed by `gather`."""
        ...

    def release(self) -> None:
        """Free the memory that the holder has beside the model until the next `refresh`."""
        ...


class GreedyEngine(WeightsHolder, Protocol):
    """Greedy answers, for evaluations."""

    def answer(
        self,
        prompts: Sequence[Prompt],
        prefixes: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        batch_size: int,
        advance: Callable[[int], None],
    ) -> list[Completion]:
        """One completion after each prompt and the tokens forced after it, which the completion does not include.

        `advance` is called with finished rows, at most `batch_size` at a time.
        """
        ...


class RolloutEngine(WeightsHolder, Protocol):
    """Sampled groups, for RL."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        group_size: int,
        seed: int,
        prompt_rows: Sequence[Row] | None = None,
        forced: Sequence[Demonstration] | None = None,
        advance: Callable[[int], None] = lambda num_rows: None,
    ) -> list[list[Rollout]]:
        """`group_size` rollouts of each prompt, with the log-probability of each token; `advance` is called with finished rows.

        A rollout is a function of the weights, its prompt, `seed` and its index in the group, independent of the rest of the batch.

        - prompt_rows: the prompts as tokens, if the caller has them already.
        - forced: one demonstration for each prompt, whose perception span is forced upon its rollouts. These have no log-probabilities.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ForcedPrefix:
    """A prompt and the tokens forced at the start of its rollouts."""

    prompt: Prompt
    forced: tuple[int, ...]

    @classmethod
    def all(cls, codec: Codec, prompts: Sequence[Prompt], demonstrations: Sequence[Demonstration] | None) -> list[ForcedPrefix]:
        """One for each prompt: the perception span of its demonstration, or no tokens without `demonstrations`."""
        spans = [()] * len(prompts) if demonstrations is None else [tuple(codec.perception_ids(own)) for own in demonstrations]
        return [cls(prompt=prompt, forced=span) for prompt, span in zip(prompts, spans, strict=True)]

    def row(self, prompt: Row) -> Row:
        """The prompt as tokens, followed by the forced ones."""
        return prompt.followed_by(self.forced, [UNSUPERVISED] * len(self.forced))

    def rollout(self, codec: Codec, sampled: Completion) -> Rollout:
        """The forced tokens and those sampled after them, parsed as one response."""
        if self.forced:
            sampled = replace(sampled, ids=(*self.forced, *sampled.ids), logprobs=None)
        return codec.rollout(self.prompt, sampled)
