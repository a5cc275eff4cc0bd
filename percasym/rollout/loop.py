"""The decoding loop: one prefill for each prompt, then one token at a time for all of its rollouts.

Unlike `model.generate`, the rollouts of a prompt share its prefill, also those with a forced prefix; the cache is never copied as it grows,
prompts of one length need no mask, and a finished row leaves the batch at once: the last row moves into its place. Each row samples from a
generator of its own, one number a token, so its tokens do not depend on the other rows of the batch.

Shapes: B unfinished rows (at first the rollouts of a prompt side by side), T cached tokens, D hidden, V vocabulary, A rotary axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from percasym.config.sampling import Sampling
from percasym.models.base import Family, Row
from percasym.models.qwen3 import Qwen3Step
from percasym.models.qwen3_copy import Qwen3Copy
from percasym.rollout.cache import RoomyCache
from percasym.types import Completion

Stop = Callable[[Sequence[int]], bool]
"""Whether a row ends early, given all its tokens so far; called after each token."""
Step = Callable[[Tensor, Tensor, Cache, Tensor | None], Tensor]
"""Tokens [B], their positions [B], the cache and the mask of its slots, [B, T] bool or None, to last hidden states, [B, hidden]."""
TOTAL = 2**52
"""Probabilities are scaled to integers with this sum, which is exact in int64 and in float64."""


@torch.inference_mode()
def generate_batch(
    model: PreTrainedModel,
    family: Family,
    prompts: Sequence[Row],
    chooser: TokenChooser,
    *,
    prefixes: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop: Stop | None,
    copy: Qwen3Copy | None = None,
) -> list[Completion]:
    """One completion after each of `prefixes`: up to the end token, `stop`, or `max_new_tokens` after the prefix. `model` is in eval mode.

    Each prompt has equally many prefixes, in the order of prompts. A completion does not include its prefix. With `copy`, a copy of the
    model's decoder, prompts are prefilled by the model and every token is computed and cached by the copy, in its type.
    """
    trunk, head = model.get_submodule("model"), copy.logits if copy else model.get_submodule("lm_head")
    device, end = next(model.parameters()).device, family.codec().end
    group_size, longest = len(prefixes) // len(prompts), max(map(len, prefixes))
    batch = family.collate(prompts).to(device)
    lengths, width = batch.mask.sum(1), batch.ids.shape[1]
    room = width + longest + max_new_tokens
    cache = RoomyCache(model.config.get_text_config().num_hidden_layers, room, copy.dtype if copy else None)

    hidden = trunk(**batch.arguments, past_key_values=cache, use_cache=True).last_hidden_state  # [B, T, D]
    last = hidden[torch.arange(len(prompts), device=device), lengths - 1].repeat_interleave(group_size, 0)  # [B, D]
    axes = batch.aligned.get("position_ids")  # [A, B, T]
    position = _next_positions(axes, lengths).repeat_interleave(group_size)  # [B]
    step = copy.step(room) if copy else decoding_step(model, num_axes=1 if axes is None else len(axes), num_positions=room)
    mask = _slot_mask(lengths, width, room).repeat_interleave(group_size, 0) if bool((lengths < width).any()) else None  # [B, room]
    forced = torch.tensor([[*ids, *[-1] * (longest - len(ids))] for ids in prefixes], device=device)  # [B, longest]
    if group_size > 1:
        cache.expand(group_size)

    tokens: list[list[int]] = [[] for _ in prefixes]
    logprobs: list[list[float]] = [[] for _ in prefixes]
    alive = list(range(len(prefixes)))  # For each row of the batch, its index in the result.
    for at in count():
        chosen, logprob = chooser.choose(head(last).float(), alive)  # [B], [B] from [B, V]
        if at < longest:
            chosen = torch.where(forced[:, at] < 0, chosen, forced[:, at])
        finished = []
        for place, (row, token, value) in enumerate(zip(alive, chosen.tolist(), logprob.tolist(), strict=True)):
            if at >= len(prefixes[row]):
                tokens[row].append(token)
                logprobs[row].append(value)
                if token == end or len(tokens[row]) == max_new_tokens or (stop is not None and stop(tokens[row])):
                    finished.append(place)
        if len(finished) == len(alive):
            break
        if finished:
            order = _compacted(len(alive), finished)
            cache.keep(order)
            alive = [alive[place] for place in order]
            kept = torch.tensor(order, device=device)
            chosen, position, forced, mask = chosen[kept], position[kept], forced[kept], None if mask is None else mask[kept]
        last = step(chosen, position, cache, None if mask is None else mask[:, : width + at + 1])
        position = position + 1
    return [
        Completion(ids=tuple(ids), logprobs=tuple(values), finished=ids[-1] == end)
        for ids, values in zip(tokens, logprobs, strict=True)
    ]  # fmt: skip


def _next_positions(axes: Tensor | None, lengths: Tensor) -> Tensor:
    """[B] position of the first generated token, the same on each rotary axis."""
    if axes is None:
        return lengths
    rows = torch.arange(axes.shape[1], device=axes.device)
    return axes[:, rows, lengths - 1].amax(0) + 1


def _slot_mask(lengths: Tensor, width: int, room: int) -> Tensor:
    """[B, room] bool, False on padding slots of the cache: prompts are padded to `width`, generated tokens follow."""
    slots = torch.arange(room, device=lengths.device)
    return (slots < lengths[:, None]) | (slots >= width)


def _compacted(num_rows: int, finished: Sequence[int]) -> list[int]:
    """Which row each place of the batch holds after the last rows have moved into the places of those that `finished`.

    >>> _compacted(5, finished=[1, 3])
    [0, 4, 2]
    """
    num_left, gone = num_rows - len(finished), set(finished)
    movers = (place for place in range(num_left, num_rows) if place not in gone)
    return [next(movers) if place in gone else place for place in range(num_left)]


def decoding_step(model: PreTrainedModel, *, num_axes: int, num_positions: int) -> Step:
    """The fastest step for this model, for positions below `num_positions`: that of its decoder, or the public forward."""
    fast = Qwen3Step.of(model, num_positions)
    return forward_step(model, num_axes) if fast is None else fast


def forward_step(model: PreTrainedModel, num_axes: int) -> Step:
    """The public forward of any model, with positions on as many axes as its prompts have."""
    trunk = model.get_submodule("model")

    def step(tokens: Tensor, positions: Tensor, cache: Cache, mask: Tensor | None) -> Tensor:
        expanded = positions[:, None] if num_axes == 1 else positions[None, :, None].expand(num_axes, -1, -1)
        inputs = {"input_ids": tokens[:, None], "position_ids": expanded, "attention_mask": mask}
        return trunk(**inputs, past_key_values=cache, use_cache=True).last_hidden_state[:, 0]

    return step


class TokenChooser(Protocol):
    """Chooses the next token of every row of a batch."""

    def choose(self, logits: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Next tokens [B] and their log-probabilities [B], from float32 logits [B, V] of these `rows`; may overwrite the logits."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy:
    """The token with the highest logit; its log-probability is over the allowed tokens, at temperature 1."""

    banned: Tensor
    """Token ids, on the device of the logits."""

    def choose(self, logits: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Next tokens and their log-probabilities."""
        logits[:, self.banned] = -torch.inf
        chosen = logits.argmax(-1)
        return chosen, logits.gather(1, chosen[:, None]).squeeze(1) - logits.logsumexp(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """Inverse-CDF sampling with one uniform number for each token.

    Banned tokens, top-k and top-p (Holtzman et al. 2020, arXiv:1904.09751) restrict the choice, in this order. The log-probability is over
    the whole vocabulary at the temperature, as in a training forward: the denominator of the policy ratio.
    """

    sampling: Sampling
    banned: Tensor
    """Token ids, on the device of the logits."""
    draws: Sequence[Random]
    """The generator of each row of the batch."""

    def choose(self, logits: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Next tokens and their log-probabilities.

        Raises FloatingPointError when the logits are not finite.
        """
        logits /= self.sampling.temperature
        normaliser = logits.logsumexp(-1)
        if not normaliser.isfinite().all():
            raise FloatingPointError("The model's logits are not finite, so nothing can be sampled: its training has diverged.")
        uniform = torch.tensor([self.draws[row].random() for row in rows], dtype=torch.float64, device=logits.device)
        chosen = self._drawn(logits.index_fill(-1, self.banned, -torch.inf), uniform)
        return chosen, logits.gather(1, chosen[:, None]).squeeze(1) - normaliser

    def _drawn(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """[B] sampled tokens."""
        top_k, top_p = self.sampling.top_k, self.sampling.top_p
        if not top_k and top_p == 1:
            return inverse_cdf(logits.softmax(-1), uniform)
        ordered, tokens = logits.sort(descending=True, stable=True)
        if top_k:
            ordered[:, top_k:] = -torch.inf
        probabilities = ordered.softmax(-1, dtype=torch.float64)
        before = probabilities.cumsum(-1) - probabilities  # 0 for the first token, so one is always kept.
        return tokens.gather(1, inverse_cdf(probabilities.masked_fill(before >= top_p, 0), uniform)[:, None]).squeeze(1)


def inverse_cdf(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """[B] indices: in each row of `probabilities` [B, V], the first whose cumulative sum is above `uniform` [B], float64 in [0, 1).

    Computed in integers: a parallel cumulative sum of floats may decrease, and could then select an index of probability 0.

    >>> inverse_cdf(torch.tensor([[0.0, 0.5, 0.0, 0.5]] * 2), torch.tensor([0.0, 0.5], dtype=torch.float64)).tolist()
    [1, 3]
    """
    cumulative = (probabilities * TOTAL).long().cumsum(-1)
    threshold = (uniform * cumulative[:, -1]).long()  # Below the last sum, however it is rounded.
    return torch.searchsorted(cumulative, threshold[:, None], right=True).squeeze(1)
