"""The forward of one more token for each row: the decoder's own quick one, or the public forward of any model.

Shapes: B rows, T cached tokens, A rotary axes.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from percasym.models.qwen3 import Qwen3Step

Step = Callable[[Tensor, Tensor, Cache, Tensor | None], Tensor]
"""Tokens [B], their positions [B], the cache and the mask of its slots, [B, T] bool or None, to last hidden states, [B, hidden]."""


def step_of(model: PreTrainedModel, *, num_axes: int, num_positions: int) -> Step:
    """The quickest there is for positions below `num_positions`."""
    quick = Qwen3Step.of(model, num_positions)
    return by_forward(model, num_axes) if quick is None else quick


def by_forward(model: PreTrainedModel, num_axes: int) -> Step:
    """The trunk's forward, whatever it is made of, with positions on as many axes as its prompts have."""
    trunk, flash = model.get_submodule("model"), model.config._attn_implementation == "flash_attention_2"

    def step(tokens: Tensor, positions: Tensor, cache: Cache, mask: Tensor | None) -> Tensor:
        spread = positions[:, None] if num_axes == 1 else positions[None, :, None].expand(num_axes, -1, -1)
        if mask is not None and not flash:  # Flash attention packs the rows by their slots, [B, T].
            mask = mask[:, None, None]
        inputs = {"input_ids": tokens[:, None], "position_ids": spread, "attention_mask": mask}
        return trunk(**inputs, past_key_values=cache, use_cache=True).last_hidden_state[:, 0]

    return step
