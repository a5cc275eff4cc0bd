"""Greedy decoding with the model that is being trained: no copy of the weights, no other engine.

Unlike `model.generate`, the cache is never copied, prompts of one length need no mask, and finished rows
leave the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from percasym.models.base import Family, Row
from percasym.rollout.cache import RoomyCache
from percasym.types import Completion

KEEP_FRAC = 0.75
"""Compact the batch when fewer of its rows than this are unfinished: copying costs about one step."""


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    family: Family,
    rows: Sequence[Row],
    *,
    max_new_tokens: int,
    batch_size: int,
    advance: Callable[[int], None] = lambda num_rows: None,
) -> list[Completion]:
    """Continue each row greedily until its end token or `max_new_tokens`; `advance` hears of finished rows.

    Rows of one length are batched together, so that attention needs no mask wherever possible.
    """
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    completions: dict[int, Completion] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        completions |= zip(chosen, _decode_batch(model, family, [rows[i] for i in chosen], max_new_tokens), strict=True)
        advance(len(chosen))
    return [completions[i] for i in range(len(rows))]


def _decode_batch(model: PreTrainedModel, family: Family, rows: Sequence[Row], max_new_tokens: int) -> list[Completion]:
    trunk, head = model.get_submodule("model"), model.get_submodule("lm_head")
    device = next(model.parameters()).device
    end, banned = family.codec().end, torch.tensor(family.codec().banned, device=device)
    batch = family.collate(rows).to(device)
    lengths = batch.mask.sum(1)
    width = batch.ids.shape[1]
    ragged = bool((lengths < width).any())
    flash = model.config._attn_implementation == "flash_attention_2"
    cache = RoomyCache(model.config.get_text_config().num_hidden_layers, width + max_new_tokens)

    hidden = trunk(**batch.arguments, past_key_values=cache, use_cache=True).last_hidden_state  # [B, T, D]
    last = hidden[torch.arange(len(rows), device=device), lengths - 1]  # [B, D]
    position = _next_positions(batch.aligned.get("position_ids"), lengths)  # [3, B] or [1, B]
    seen = torch.arange(width, device=device) < lengths[:, None]  # [B, T] slots of the cache that hold real tokens

    tokens: list[list[int]] = [[] for _ in rows]
    logprobs: list[list[float]] = [[] for _ in rows]
    alive = list(range(len(rows)))
    for _ in range(max_new_tokens):
        logits = head(last).float()  # [B, V]
        logits[:, banned] = -torch.inf
        chosen = logits.argmax(-1)  # [B]
        chances = logits.log_softmax(-1).gather(1, chosen[:, None]).squeeze(1)
        drawn = chosen.tolist()
        for row, token, chance in zip(alive, drawn, chances.tolist(), strict=True):
            if not tokens[row] or tokens[row][-1] != end:
                tokens[row].append(token)
                logprobs[row].append(chance)
        unfinished = [i for i, row in enumerate(alive) if tokens[row][-1] != end]
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
