"""Decoding with the model that is being trained: no copy of the weights, no other engine.

`decode` gives the greedy answers of evaluations; `NativeRollouts` samples groups for RL (`rollout=native`). Both are batches
of one loop, `percasym.rollout.loop`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

import torch
from transformers import PreTrainedModel

from percasym.config.sampling import Native
from percasym.models.base import Family, Row
from percasym.rollout.base import ForcedPrefix
from percasym.rollout.loop import Stop, continued
from percasym.rollout.sampler import Greedy, Sampler
from percasym.spans.codec import Codec
from percasym.types import Completion, Prompt, Rollout


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
    """Continue each row greedily until its end token or `max_new_tokens`; `advance` hears of finished rows.

    With `stop`, a row ends at the token that completes this text, too; such a completion is not `finished`.
    """
    limits = {"max_new_tokens": max_new_tokens, "batch_size": batch_size}
    return [alone for (alone,) in branched(model, family, rows, [[()]] * len(rows), **limits, stop=stop, advance=advance)]


def branched(
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
    """As `decode`, once after each of the `branches` of a row: tokens that it is made to go on with, not repeated in the completion.

    The branches of a row, equally many for all rows, share its prefill.
    """
    codec, device = family.codec(), next(model.parameters()).device
    greedy, closed = Greedy(banned=torch.tensor(codec.banned, device=device)), ends_with(codec, stop) if stop else None
    completions: list[list[Completion]] = [[] for _ in rows]
    for chosen, some in batches(rows, len(branches[0]) if rows else 1, batch_size):
        asked, beginnings = [rows[i] for i in chosen], [branches[i][branch] for i in chosen for branch in some]
        done = iter(continued(model, family, asked, greedy, beginnings=beginnings, max_new_tokens=max_new_tokens, stop=closed))
        for i in chosen:
            completions[i] += [next(done) for _ in some]
        advance(len(beginnings))
    return completions


@dataclass(slots=True, kw_only=True)
class NativeRollouts:
    """Groups sampled from the model in training: a `RolloutEngine`.

    Each rollout has a generator of its own, seeded by its prompt's key, the seed and its place in the group, so batches,
    ranks and finished neighbours change nothing (but the last bits of the logits).
    """

    family: Family
    sampling: Native
    _model: PreTrainedModel | None = field(default=None, init=False, repr=False)

    def refresh(self, model: PreTrainedModel) -> None:
        """Sample from this model from now on; its weights are read where they are."""
        self._model = model

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
        """`group_size` rollouts of each prompt, as `RolloutEngine` says."""
        model, codec = self._model, self.family.codec()
        assert model is not None, "refresh comes before generate"
        openings = ForcedPrefix.all(codec, prompts, stated)
        known = [self.family.prompt(prompt) for prompt in prompts] if asked is None else asked
        rows = [opening.row(row) for opening, row in zip(openings, known, strict=True)]
        banned = torch.tensor(codec.banned, device=next(model.parameters()).device)
        groups: list[list[Rollout]] = [[] for _ in prompts]
        was_training = model.training
        model.eval()
        for chosen, siblings in batches(rows, group_size, self.sampling.batch_size):
            draws = [prompts[i].key.rng("rollout", seed, sibling) for i in chosen for sibling in siblings]
            sampler = Sampler(sampling=self.sampling, banned=banned, draws=draws)
            some, budget, free = [rows[i] for i in chosen], self.sampling.max_new_tokens, [()] * len(draws)
            done = iter(continued(model, self.family, some, sampler, beginnings=free, max_new_tokens=budget, stop=None))
            for i in chosen:
                groups[i] += [openings[i].rollout(codec, next(done)) for _ in siblings]
            advance(len(draws))
        model.train(was_training)
        return groups


def batches(rows: Sequence[Row], group_size: int, batch_size: int) -> Iterator[tuple[list[int], range]]:
    """Which rows are decoded together, and which siblings of each: whole groups while they fit in `batch_size`.

    Rows of one length come together, so that attention needs no mask wherever possible.

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
    """Have the tokens just completed `text`, however they cut it?"""
    closing = text.encode()

    @cache
    def piece(token: int) -> bytes:
        return codec.pieces([token])[0]

    # No token is empty, so `text` and the token that completes it lie within as many tokens as it has bytes.
    return lambda ids: closing in b"".join(piece(token) for token in ids[-len(closing) :])
