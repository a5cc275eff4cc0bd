"""Single-token decoding step of the Qwen3 decoder, the language model of both families.

Unlike the transformers forward it computes the rotary tables once, normalises and rotates queries and keys together, batches the query
heads of each key-value head, and builds no mask. Projections are called as modules, so adapters apply.
Shapes: B rows, H key-value heads, G query heads of each, D width of a head, T cached tokens, N positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextDecoderLayer

LAYERS = (Qwen3DecoderLayer, Qwen3VLTextDecoderLayer)
"""Layers with the arithmetic below; mixture-of-experts layers have another class and fall back to the library."""

Norm = Callable[[Tensor], Tensor]
Layer = tuple[Any, Any, Norm, Norm, Norm]
"""Attention and feed-forward network; the norms before attention, of queries and keys together, and before the network."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3Step:
    """A decoder prepared for one token at a time; valid until its weights change."""

    embed: nn.Module
    layers: Sequence[Layer]
    norm: Norm
    cos: Tensor
    """[N, D] of each position."""
    sin: Tensor
    """[N, D], the first half negated, so that rolling the states by D / 2 replaces `rotate_half`."""

    @classmethod
    def of(cls, model: PreTrainedModel, num_positions: int) -> Qwen3Step | None:
        """Prepare the decoder of `model` for positions below `num_positions`; None if its layers or attention are not supported."""
        decoder = supported_decoder(model)
        if decoder is None:
            return None
        cos, sin = rotary_tables(decoder, num_positions)
        layers = [prepare_layer(layer) for layer in decoder.layers]
        return cls(embed=decoder.embed_tokens, layers=layers, norm=rms_norm(decoder.norm), cos=cos, sin=sin)

    def __call__(self, tokens: Tensor, positions: Tensor, cache: Cache, mask: Tensor | None) -> Tensor:
        """Last hidden states [B, hidden] of `tokens` [B] at `positions` [B]; `mask` [B, T] is False where the cache holds padding."""
        cos, sin = self.cos[positions][:, None, None], self.sin[positions][:, None, None]  # [B, 1, 1, D]
        mask = None if mask is None else mask[:, None, None]
        hidden = self.embed(tokens)  # [B, hidden]
        for index, (attention, mlp, before_attention, of_heads, before_mlp) in enumerate(self.layers):
            num_queries, width, states = attention.num_key_value_groups, attention.head_dim, before_attention(hidden)
            queries = attention.q_proj(states).view(len(tokens), -1, num_queries, width)
            heads = of_heads(torch.cat([queries, attention.k_proj(states).view(len(tokens), -1, 1, width)], dim=2))  # [B, H, G + 1, D]
            heads = torch.addcmul(heads * cos, heads.roll(width // 2, -1), sin)
            values = attention.v_proj(states).view(len(tokens), -1, 1, width)
            keys, values = cache.update(heads[:, :, num_queries:], values, index)  # [B, H, T, D]
            mixed = attend(heads[:, :, :num_queries] * attention.scaling, keys, values, mask)
            hidden = hidden + attention.o_proj(mixed.reshape(len(tokens), -1))
            states = before_mlp(hidden)
            hidden = hidden + mlp.down_proj(mlp.act_fn(mlp.gate_proj(states)) * mlp.up_proj(states))
        return self.norm(hidden)


def supported_decoder(model: PreTrainedModel) -> Any:
    """The decoder of a model if its layers, rotation and attention are those computed here, else None."""
    decoder: Any = getattr(model.get_submodule("model"), "language_model", None)
    layers = list(getattr(decoder, "layers", ()))
    supported = [type(layer) in LAYERS and getattr(layer.self_attn, "sliding_window", None) is None for layer in layers]
    if not layers or not all(supported):
        return None
    return decoder if decoder.rotary_emb.rope_type == "default" and decoder.config._attn_implementation == "sdpa" else None


def rotary_tables(decoder: Any, num_positions: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines [N, D] of each position, the first half of the sines negated."""
    device = decoder.embed_tokens.weight.device
    positions = torch.arange(num_positions, device=device)[None, None]  # Text has equal positions on all rotary axes: one is enough.
    states = torch.empty(0, device=device)  # float32, whatever the type of the weights.
    cos, sin = (table.reshape(num_positions, -1) for table in decoder.rotary_emb(states, positions))
    sin[:, : sin.shape[1] // 2].neg_()
    return cos, sin


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(queries keys^T) values, [B, H, G, D], for scaled queries [B, H, G, D] and keys and values [B, H, T, D].

    On a CPU two matrix products and a softmax take 0.7 of the time of the fused kernel, which is built for many queries.
    """
    if queries.device.type != "cpu":
        return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=1.0)
    scores = queries @ keys.mT  # [B, H, G, T]
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ values


def prepare_layer(layer: Any) -> Layer:
    """The parts of a layer; the norm of queries and keys has G rows of the query weight and one row of the key weight."""
    attention = layer.self_attn
    weights = [*[attention.q_norm.weight] * attention.num_key_value_groups, attention.k_norm.weight]
    of_heads = rms_norm_with(torch.stack(weights), attention.q_norm.variance_epsilon)
    return attention, layer.mlp, rms_norm(layer.input_layernorm), of_heads, rms_norm(layer.post_attention_layernorm)


def rms_norm(norm: Any) -> Norm:
    """A function equal to an RMSNorm module."""
    return rms_norm_with(norm.weight, norm.variance_epsilon)


def rms_norm_with(weight: Tensor, eps: float) -> Norm:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis: one fused kernel on a GPU, four kernels instead of eight on a CPU."""
    width = weight.shape[-1]
    scaled, floor = weight.float() * width**0.5, torch.tensor((width * eps) ** 0.5)

    def normed(states: Tensor) -> Tensor:
        if states.device.type == "cpu" and states.dtype == torch.float32:  # sqrt(mean(x^2) + eps) sqrt(width) = hypot(|x|, floor)
            return states / torch.hypot(torch.linalg.vector_norm(states, dim=-1, keepdim=True), floor) * scaled
        return functional.rms_norm(states.float(), (width,), None, eps).to(states.dtype) * weight

    return normed
