"""The decoding loop: prefill each prompt once, then one token a step for all of its siblings.

Unlike `model.generate`, a group shares its prefill, the cache is never copied, prompts of one length need no mask,
and finished rows leave the batch. Shapes: B rows (siblings of a prompt side by side), T cached tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from percasym.models.base import Family, Row
from percasym.rollout.cache import RoomyCache
from percasym.rollout.choose import Chooser
from percasym.types import Completion

KEEP_FRAC = 0.75
"""Compact the batch when fewer of its rows than this are unfinished: copying costs about one step."""

Stop = Callable[[Sequence[int]], bool]
"""Whether a row ends early, given all its tokens so far; asked at each of them."""


@torch.inference_mode()
def continued(
    model: PreTrainedModel,
    family: Family,
    prompts: Sequence[Row],
    chooser: Chooser,
    *,
    siblings: int,
    max_new_tokens: int,
    stop: Stop | None,
) -> list[Completion]:
    """`siblings` continuations of each prompt, side by side: until the end token, `stop`, or `max_new_tokens`."""
    trunk, head = model.get_submodule("model"), model.get_submodule("lm_head")
    device = next(model.parameters()).device
    end = family.codec().end
    batch = family.collate(prompts).to(device)
    lengths = batch.mask.sum(1)
    width = batch.ids.shape[1]
    ragged = bool((lengths < width).any())
    flash = model.config._attn_implementation == "flash_attention_2"
    cache = RoomyCache(model.config.get_text_config().num_hidden_layers, width + max_new_tokens)

    hidden = trunk(**batch.arguments, past_key_values=cache, use_cache=True).last_hidden_state  # [B, T, D]
    last = hidden[torch.arange(len(prompts), device=device), lengths - 1]  # [B, D]
    position = _next_positions(batch.aligned.get("position_ids"), lengths)  # [3, B] or [1, B]
    seen = torch.arange(width, device=device) < lengths[:, None]  # [B, T] slots of the cache that hold real tokens
    if siblings > 1:
        cache.expand(siblings)
        last, seen = last.repeat_interleave(siblings, 0), seen.repeat_interleave(siblings, 0)
        position = position.repeat_interleave(siblings, 1)

    tokens: list[list[int]] = [[] for _ in last]
    logprobs: list[list[float]] = [[] for _ in last]
    done = [False for _ in last]
    alive = list(range(len(last)))
    for _ in range(max_new_tokens):
        chosen, chances = chooser.choose(head(last).float(), alive)  # [B], [B] from [B, V]
        for row, token, chance in zip(alive, chosen.tolist(), chances.tolist(), strict=True):
            if not done[row]:
                tokens[row].append(token)
                logprobs[row].append(chance)
                done[row] = token == end or (stop is not None and stop(tokens[row]))
        unfinished = [i for i, row in enumerate(alive) if not done[row]]
        if not unfinished:
            break
        if len(unfinished) < KEEP_FRAC * len(alive):
            keep = torch.tensor(unfinished, device=device)
            cache.keep(keep)
            chosen, position, seen = chosen[keep], position[:, keep], seen[keep]
            alive = [alive[i] for i in unfinished]
        mask = None
        if ragged:
            seen = torch.cat([seen, seen.new_ones(len(seen), 1)], dim=1)
            mask = seen if flash else seen[:, None, None]  # [B, 1, 1, T]; flash attention packs the rows by their slots, [B, T].
        step = trunk(
            input_ids=chosen[:, None], position_ids=_as_input(position), attention_mask=mask, past_key_values=cache, use_cache=True
        )
        last, position = step.last_hidden_state[:, 0], position + 1
    return [
        Completion(ids=tuple(ids), logprobs=tuple(chances), finished=ids[-1] == end)
        for ids, chances in zip(tokens, logprobs, strict=True)
    ]  # fmt: skip


def _next_positions(positions: Tensor | None, lengths: Tensor) -> Tensor:
    """[A, B] position of the first generated token on each of the A rotary axes."""
    if positions is None:
        return lengths[None]
    rows = torch.arange(positions.shape[1], device=positions.device)
    return positions[:, rows, lengths - 1].amax(0, keepdim=True).expand(len(positions), -1) + 1


def _as_input(position: Tensor) -> Tensor:
    """[A, B, 1], or [B, 1] with a single axis, as a trunk expects `position_ids`."""
    return position[0, :, None] if len(position) == 1 else position[:, :, None]
