"""Decoding with the model in training: no copy of the weights, no other inference engine.

`NativeAnswers` computes the greedy answers of evaluations; `NativeRollouts` samples groups for RL (`rollout=native`). Both run the loop of
`percasym.rollout.loop` in batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

import torch
from transformers import PreTrainedModel

from percasym.config.sampling import Native
from percasym.config.schema import ConfigError
from percasym.models.base import Family, Row
from percasym.models.mode import evaluating
from percasym.models.qwen3_copy import Qwen3Copy
from percasym.rollout.base import ForcedPrefix, Gather
from percasym.rollout.loop import Greedy, Sampler, Stop, generate_batch
from percasym.spans.codec import Codec
from percasym.types import Completion, Demonstration, Prompt, Rollout

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def decode(
    model: PreTrainedModel,
    family: Family,
    rows: Sequence[Row],
    *,
    max_new_tokens: int,
    batch_size: int,
    stop: str | None = None,
    advance: Callable[[int], None] = lambda num_rows: None,
) -> list[Completion]:
    """Continue each row greedily until its end token or `max_new_tokens`; `advance` is called with finished rows.

    With `stop`, a row also ends at the token that completes this text; such a completion is not `finished`.
    """
    limits = {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
    return [completion for (completion,) in decode_branches(model, family, rows, [[()]] * len(rows), **limits, stop=stop, advance=advance)]


def decode_branches(
    model: PreTrainedModel,
    family: Family,
    rows: Sequence[Row],
    branches: Sequence[Sequence[Sequence[int]]],
    *,
    max_new_tokens: int,
    batch_size: int,
    stop: str | None = None,
    advance: Callable[[int], None] = lambda num_rows: None,
) -> list[list[Completion]]:
    """As `decode`, but one completion after each branch of a row: tokens forced after the row, which the completion does not include.

    All rows have equally many branches, and those of a row share its prefill.
    """
    codec, device = family.codec(), next(model.parameters()).device
    greedy, stops = Greedy(banned=torch.tensor(codec.banned, device=device)), ends_with(codec, stop) if stop else None
    completions: list[list[Completion]] = [[] for _ in rows]
    with evaluating(model):
        for chosen, some in batches(rows, len(branches[0]) if rows else 1, batch_size):
            prompts, prefixes = [rows[i] for i in chosen], [branches[i][branch] for i in chosen for branch in some]
            done = iter(generate_batch(model, family, prompts, greedy, prefixes=prefixes, max_new_tokens=max_new_tokens, stop=stops))
            for i in chosen:
                completions[i] += [next(done) for _ in some]
            advance(len(prefixes))
    return completions


@dataclass(slots=True, kw_only=True)
class NativeAnswers:
    """Greedy answers of the model itself: a `GreedyEngine`."""

    streams: ClassVar[bool] = False
    family: Family
    _model: PreTrainedModel | None = field(default=None, init=False, repr=False)

    def refresh(self, model: PreTrainedModel, gather: Gather | None = None) -> None:
        """Answer with this model from now on; its weights are not copied."""
        self._model = model

    def release(self) -> None:
        """No-op: there is no copy of the weights."""

    def answer(
        self,
        prompts: Sequence[Prompt],
        prefixes: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        batch_size: int,
        advance: Callable[[int], None],
    ) -> list[Completion]:
        """One greedy completion after each prompt and its forced tokens, as in `GreedyEngine`."""
        model = self._model
        assert model is not None, "refresh comes before answer"
        rows, branches = [self.family.prompt(prompt) for prompt in prompts], [[ids] for ids in prefixes]
        done = decode_branches(model, self.family, rows, branches, max_new_tokens=max_new_tokens, batch_size=batch_size, advance=advance)
        return [completion for (completion,) in done]


@dataclass(slots=True, kw_only=True)
class NativeRollouts:
    """Groups sampled from the model in training: a `RolloutEngine`.

    Each rollout has a random generator of its own, seeded by its prompt's key, the seed and its index in the group. Batch size, number of
    ranks and other rows have no effect on it, except on the last bits of the logits.
    """

    streams: ClassVar[bool] = False
    family: Family
    sampling: Native
    _model: PreTrainedModel | None = field(default=None, init=False, repr=False)
    _copy: Qwen3Copy | None = field(default=None, init=False, repr=False)

    def refresh(self, model: PreTrainedModel, gather: Gather | None = None) -> None:
        """Sample from this model from now on: by itself, or by a copy of its decoder in the type of `rollout.precision`.

        Raises ConfigError for a precision that this decoder cannot have.
        """
        self._model = model
        if self.sampling.precision != "auto":
            self._copy = Qwen3Copy.of(model, DTYPES[self.sampling.precision])
            if self._copy is None:
                raise ConfigError(
                    f"rollout.precision={self.sampling.precision} copies a dense Qwen3 decoder with model.attention=sdpa, and this model "
                    "has another. Use rollout.precision=auto."
                )

    def release(self) -> None:
        """Free the copy of the decoder, if there is one."""
        self._copy = None

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
        """`group_size` rollouts of each prompt, as in `RolloutEngine`."""
        model, codec = self._model, self.family.codec()
        assert model is not None, "refresh comes before generate"
        prefixes = ForcedPrefix.all(codec, prompts, forced)
        prompt_rows = [self.family.prompt(prompt) for prompt in prompts] if prompt_rows is None else prompt_rows
        rows = [prefix.row(row) for prefix, row in zip(prefixes, prompt_rows, strict=True)]
        banned = torch.tensor(codec.banned, device=next(model.parameters()).device)
        groups: list[list[Rollout]] = [[] for _ in prompts]
        limit = self.sampling.max_new_tokens
        with evaluating(model):
            for chosen, indices in batches(rows, group_size, self.sampling.batch_size):
                draws = [prompts[i].key.rng("rollout", seed, index) for i in chosen for index in indices]
                sampler = Sampler(sampling=self.sampling, banned=banned, draws=draws)
                some, free = [rows[i] for i in chosen], [()] * len(draws)
                done = iter(
                    generate_batch(model, self.family, some, sampler, prefixes=free, max_new_tokens=limit, stop=None, copy=self._copy)
                )
                for i in chosen:
                    groups[i] += [prefixes[i].rollout(codec, next(done)) for _ in indices]
                advance(len(draws))
        return groups


def batches(rows: Sequence[Row], group_size: int, batch_size: int) -> Iterator[tuple[list[int], range]]:
    """Which rows are decoded together, and which rollouts of each: whole groups while they fit in `batch_size`.

    Rows are sorted by length, so that most batches need no mask.

    >>> rows = [Row(ids=[0] * length, labels=[]) for length in (2, 1, 2)]
    >>> list(batches(rows, group_size=2, batch_size=5))
    [([1, 0], range(0, 2)), ([2], range(0, 2))]
    >>> list(batches(rows[:1], group_size=3, batch_size=2))
    [([0], range(0, 2)), ([0], range(2, 3))]
    """
    order, num = sorted(range(len(rows)), key=lambda i: len(rows[i].ids)), max(1, batch_size // group_size)
    for start in range(0, len(order), num):
        for first in range(0, group_size, batch_size):
            yield order[start : start + num], range(first, min(first + batch_size, group_size))


def ends_with(codec: Codec, text: str) -> Stop:
    """A `Stop` that ends a row once its tokens contain `text`, however they split it."""
    closing = text.encode()

    @cache
    def piece(token: int) -> bytes:
        return codec.pieces([token])[0]

    # No token is empty, so `text` and the token that completes it lie within as many tokens as it has bytes.
    return lambda ids: closing in b"".join(piece(token) for token in ids[-len(closing) :])
