"""A copy of the Qwen3 decoder for sampling: one type of weights, adapters merged, projections fused.

Unlike `Qwen3Step`, which calls the modules of the model in training, this holds weights of its own until the next update: a third of the
matrix products (queries, keys and values are one, gate and up are one), no adapter, gains of norms multiplied into the projections after
them, and any type. The residual stream, norms and rotations stay in float32; products, keys and values have the type of the copy.
Shapes: B rows, H key-value heads, G query heads of each, D width of a head, T cached tokens, N positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from percasym.models.qwen3 import attend, rotary_tables, supported_decoder


class Copied(NamedTuple):
    """One layer."""

    qkv: Tensor
    """[H (G + 2) D, hidden]: for each key-value head its queries, its key and its value."""
    gains: Tensor
    """[G + 1, D] float32: those of the norms of queries, times the scale of attention, and of the key."""
    out: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3Copy:
    """The decoder and head of a model in one type, valid for the weights that it was made of."""

    dtype: torch.dtype
    embed: Tensor
    """[V, hidden] float32."""
    layers: Sequence[Copied]
    norm: Tensor
    """[hidden] float32."""
    head: Tensor
    num_queries: int
    """G."""
    head_dim: int
    eps: float
    decoder: Any
    """The decoder in training, for its rotary tables; they have no trained weights."""

    @classmethod
    @torch.no_grad()
    def of(cls, model: PreTrainedModel, dtype: torch.dtype) -> Qwen3Copy | None:
        """Copy the decoder of `model`, all of whose weights are complete; None where its layers are not those of `Qwen3Step`."""
        decoder = supported_decoder(model)
        if decoder is None or any(isinstance(module, nn.Linear) and module.bias is not None for module in decoder.layers.modules()):
            return None
        attention = decoder.layers[0].self_attn
        return cls(
            dtype=dtype,
            embed=decoder.embed_tokens.weight.detach().float().clone(),
            layers=[_copied(layer, dtype) for layer in decoder.layers],
            norm=decoder.norm.weight.detach().float().clone(),
            head=merged_weight(model.get_submodule("lm_head")).to(dtype, copy=True),
            num_queries=attention.num_key_value_groups,
            head_dim=attention.head_dim,
            eps=attention.q_norm.variance_epsilon,
            decoder=decoder,
        )

    def logits(self, hidden: Tensor) -> Tensor:
        """[B, V] float32 from last hidden states [B, hidden]."""
        return functional.linear(hidden.to(self.dtype), self.head).float()

    def step(self, num_positions: int) -> CopiedStep:
        """A step of one token for positions below `num_positions`."""
        cos, sin = rotary_tables(self.decoder, num_positions)
        return CopiedStep(copy=self, cos=cos, sin=sin)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedStep:
    """One token for every row of a batch."""

    copy: Qwen3Copy
    cos: Tensor
    """[N, D] of each position."""
    sin: Tensor
    """[N, D], the first half negated, as in `Qwen3Step`."""

    def __call__(self, tokens: Tensor, positions: Tensor, cache: Cache, mask: Tensor | None) -> Tensor:
        """Last hidden states [B, hidden] of `tokens` [B] at `positions` [B]; `mask` [B, T] is False where the cache holds padding."""
        copy, rows = self.copy, len(tokens)
        width, dtype, linear = copy.head_dim, copy.dtype, functional.linear
        cos, sin = self.cos[positions][:, None, None], self.sin[positions][:, None, None]  # [B, 1, 1, D]
        mask = None if mask is None else mask[:, None, None]
        hidden = functional.embedding(tokens, copy.embed)  # [B, hidden]
        rounded = dtype != torch.float32 and hidden.device.type == "cpu" and hasattr(cache, "roomy")
        for index, layer in enumerate(copy.layers):
            together = linear(_normed(hidden, copy.eps).to(dtype), layer.qkv).view(rows, -1, copy.num_queries + 2, width)
            heads = _normed(together[:, :, :-1].float(), copy.eps) * layer.gains  # [B, H, G + 1, D]
            heads = torch.addcmul(heads * cos, heads.roll(width // 2, -1), sin).to(dtype)
            keys, values = cache.update(heads[:, :, -1:], together[:, :, -1:], index)  # [B, H, T, D]
            if rounded:
                length, (keys, values) = keys.shape[2], cache.roomy[index].rounded()  # type: ignore[attr-defined]
                mixed = attend_rounded(heads[:, :, :-1], keys, values, length, mask)
            else:
                mixed = attend(heads[:, :, :-1], keys, values, mask)
            hidden = hidden + linear(mixed.reshape(rows, -1), layer.out)
            gate, up = linear(_normed(hidden, copy.eps).to(dtype), layer.gate_up).chunk(2, -1)
            hidden = hidden + linear(functional.silu(gate) * up, layer.down)
        return _normed(hidden, copy.eps) * copy.norm


def attend_rounded(queries: Tensor, keys: Tensor, values: Tensor, length: int, mask: Tensor | None) -> Tensor:
    """As `attend`, for keys and values of more slots than `length`, the number of cached tokens."""
    scores = queries @ keys.mT  # [B, H, G, rounded T]
    scores[..., length:] = -torch.inf
    if mask is not None:
        scores[..., :length].masked_fill_(~mask, -torch.inf)
    return scores.softmax(-1) @ values


def merged_weight(layer: Any) -> Tensor:
    """The weight of a linear layer with its adapters merged, detached; the layer itself is not changed."""
    base = getattr(layer, "base_layer", None)
    if base is None:
        return layer.weight.detach()
    return base.weight.detach().float() + sum(layer.get_delta_weight(name).detach() for name in layer.active_adapters)


def _normed(states: Tensor, eps: float) -> Tensor:
    """states / sqrt(mean(states^2) + eps) over the last axis: an RMSNorm without its gain."""
    if states.device.type != "cpu":
        return functional.rms_norm(states, (states.shape[-1],), None, eps)
    width = states.shape[-1]  # sqrt(mean(x^2) + eps) sqrt(width) = hypot(|x|, floor)
    floor = states.new_tensor((width * eps) ** 0.5)
    return states * (width**0.5 / torch.hypot(torch.linalg.vector_norm(states, dim=-1, keepdim=True), floor))


def _copied(layer: Any, dtype: torch.dtype) -> Copied:
    attention, mlp = layer.self_attn, layer.mlp
    width, num_queries = attention.head_dim, attention.num_key_value_groups
    queries, keys, values = (merged_weight(getattr(attention, name)).float() for name in ("q_proj", "k_proj", "v_proj"))
    hidden = keys.shape[1]
    by_head = [queries.view(-1, num_queries, width, hidden), keys.view(-1, 1, width, hidden), values.view(-1, 1, width, hidden)]
    gain = layer.input_layernorm.weight.detach().float()
    gate_up = torch.cat([merged_weight(mlp.gate_proj).float(), merged_weight(mlp.up_proj).float()])
    query_gain, key_gain = (norm.weight.detach().float() for norm in (attention.q_norm, attention.k_norm))
    return Copied(
        qkv=(torch.cat(by_head, 1).reshape(-1, hidden) * gain).to(dtype),
        gains=torch.stack([*[query_gain * attention.scaling] * num_queries, key_gain]),
        out=merged_weight(attention.o_proj).to(dtype, copy=True),
        gate_up=(gate_up * layer.post_attention_layernorm.weight.detach().float()).to(dtype),
        down=merged_weight(mlp.down_proj).to(dtype, copy=True),
    )
