"""The decoding loop: prefill each prompt once, then one token a step for all of its siblings.

Unlike `model.generate`, siblings share the prefill of their prompt, also where some are made to begin with given tokens; the cache is
never copied, prompts of one length need no mask, and a row that finishes leaves at once: the last row moves into its place.
Shapes: B unfinished rows (at first the siblings of a prompt side by side), T cached tokens, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import torch
from torch import Tensor
from transformers import PreTrainedModel

from percasym.models.base import Family, Row
from percasym.rollout.cache import RoomyCache
from percasym.rollout.sampler import Chooser
from percasym.rollout.step import step_of
from percasym.types import Completion

Stop = Callable[[Sequence[int]], bool]
"""Whether a row ends early, given all its tokens so far; asked at each of them."""


@torch.inference_mode()
def continued(
    model: PreTrainedModel,
    family: Family,
    prompts: Sequence[Row],
    chooser: Chooser,
    *,
    beginnings: Sequence[Sequence[int]],
    max_new_tokens: int,
    stop: Stop | None,
) -> list[Completion]:
    """One continuation after each of `beginnings`: until the end token, `stop`, or `max_new_tokens` after the beginning.

    Each prompt has equally many beginnings, those of the first come first. A completion does not repeat its beginning.
    """
    trunk, head = model.get_submodule("model"), model.get_submodule("lm_head")
    device, end = next(model.parameters()).device, family.codec().end
    siblings, longest = len(beginnings) // len(prompts), max(map(len, beginnings))
    batch = family.collate(prompts).to(device)
    lengths, width = batch.mask.sum(1), batch.ids.shape[1]
    room = width + longest + max_new_tokens
    cache = RoomyCache(model.config.get_text_config().num_hidden_layers, room)

    hidden = trunk(**batch.arguments, past_key_values=cache, use_cache=True).last_hidden_state  # [B, T, D]
    last = hidden[torch.arange(len(prompts), device=device), lengths - 1].repeat_interleave(siblings, 0)  # [B, D]
    axes = batch.aligned.get("position_ids")  # [A, B, T]
    position = _next_positions(axes, lengths).repeat_interleave(siblings)  # [B]
    step = step_of(model, num_axes=1 if axes is None else len(axes), num_positions=room)
    seen = _seen(lengths, width, room).repeat_interleave(siblings, 0) if bool((lengths < width).any()) else None  # [B, room]
    forced = torch.tensor([[*ids, *[-1] * (longest - len(ids))] for ids in beginnings], device=device)  # [B, longest]
    if siblings > 1:
        cache.expand(siblings)

    tokens: list[list[int]] = [[] for _ in beginnings]
    logprobs: list[list[float]] = [[] for _ in beginnings]
    alive = list(range(len(beginnings)))  # Which row of the result each row of the batch is.
    for at in count():
        chosen, chances = chooser.choose(head(last).float(), alive)  # [B], [B] from [B, V]
        if at < longest:
            chosen = torch.where(forced[:, at] < 0, chosen, forced[:, at])
        finished = []
        for place, (row, token, chance) in enumerate(zip(alive, chosen.tolist(), chances.tolist(), strict=True)):
            if at >= len(beginnings[row]):
                tokens[row].append(token)
                logprobs[row].append(chance)
                if token == end or len(tokens[row]) == max_new_tokens or (stop is not None and stop(tokens[row])):
                    finished.append(place)
        if len(finished) == len(alive):
            break
        if finished:
            order = _closed_up(len(alive), finished)
            cache.keep(order)
            alive = [alive[place] for place in order]
            kept = torch.tensor(order, device=device)
            chosen, position, forced, seen = chosen[kept], position[kept], forced[kept], None if seen is None else seen[kept]
        last = step(chosen, position, cache, None if seen is None else seen[:, : width + at + 1])
        position = position + 1
    return [
        Completion(ids=tuple(ids), logprobs=tuple(chances), finished=ids[-1] == end)
        for ids, chances in zip(tokens, logprobs, strict=True)
    ]  # fmt: skip


def _next_positions(axes: Tensor | None, lengths: Tensor) -> Tensor:
    """[B] position of the first generated token, the same on each rotary axis."""
    if axes is None:
        return lengths
    rows = torch.arange(axes.shape[1], device=axes.device)
    return axes[:, rows, lengths - 1].amax(0) + 1


def _seen(lengths: Tensor, width: int, room: int) -> Tensor:
    """[B, room] which slots of the cache are no padding: prompts are padded up to `width`, generated tokens follow."""
    slots = torch.arange(room, device=lengths.device)
    return (slots < lengths[:, None]) | (slots >= width)


def _closed_up(num_rows: int, finished: Sequence[int]) -> list[int]:
    """Which row each place holds once the last ones have moved into the places of those that `finished`.

    >>> _closed_up(5, finished=[1, 3])
    [0, 4, 2]
    """
    num_left, gone = num_rows - len(finished), set(finished)
    movers = (place for place in range(num_left, num_rows) if place not in gone)
    return [next(movers) if place in gone else place for place in range(num_left)]
