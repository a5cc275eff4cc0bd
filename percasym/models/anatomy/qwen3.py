"""The language model of both families: Qwen3, dense or a mixture of experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from percasym.models.anatomy.base import Stack, Weights, linear, norm

ROOT = "model.language_model"


def decoder(text: Mapping[str, Any], *, tied: bool) -> tuple[Weights, ...]:
    """Embeddings, layers, last norm and head, from `text_config`."""
    hidden, width, layers = text["hidden_size"], text["head_dim"], tuple(range(text["num_hidden_layers"]))
    queries, keys = text["num_attention_heads"] * width, text["num_key_value_heads"] * width
    bias = text.get("attention_bias", False)
    at = ROOT + ".layers.{}"
    vocabulary = (text["vocab_size"], hidden)
    embeddings = Weights(name=f"{ROOT}.embed_tokens.weight", part="language", shape=vocabulary, kind="head" if tied else "table")
    head = () if tied else (Weights(name="lm_head.weight", part="language", shape=vocabulary, kind="head"),)
    return (
        embeddings,
        *linear(f"{at}.self_attn.q_proj", "language", queries, hidden, layers, bias=bias),
        *linear(f"{at}.self_attn.k_proj", "language", keys, hidden, layers, bias=bias),
        *linear(f"{at}.self_attn.v_proj", "language", keys, hidden, layers, bias=bias),
        *linear(f"{at}.self_attn.o_proj", "language", hidden, queries, layers, bias=bias),
        *norm(f"{at}.self_attn.q_norm", "language", width, layers, bias=False),
        *norm(f"{at}.self_attn.k_norm", "language", width, layers, bias=False),
        *norm(f"{at}.input_layernorm", "language", hidden, layers, bias=False),
        *norm(f"{at}.post_attention_layernorm", "language", hidden, layers, bias=False),
        *_dense(f"{at}.mlp", hidden, text["intermediate_size"], tuple(layer for layer in layers if not _sparse(text, layer))),
        *_mixture(f"{at}.mlp", text, tuple(layer for layer in layers if _sparse(text, layer))),
        *norm(f"{ROOT}.norm", "language", hidden, None, bias=False),
        *head,
    )


def stack(text: Mapping[str, Any]) -> Stack:
    """The sizes of its layers; of a mixture, those of a sparse layer."""
    sparse = bool(text.get("num_experts"))
    return Stack(
        layers=text["num_hidden_layers"],
        hidden=text["hidden_size"],
        heads=text["num_attention_heads"],
        kv_heads=text["num_key_value_heads"],
        head_dim=text["head_dim"],
        mlp=text["num_experts_per_tok"] * text["moe_intermediate_size"] if sparse else text["intermediate_size"],
        gated=True,
        rms=True,
    )


def experts_frac(text: Mapping[str, Any]) -> float:
    """Share of the experts that one token passes through."""
    return text["num_experts_per_tok"] / text["num_experts"] if text.get("num_experts") else 1.0


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether head and embeddings are one tensor; where the file does not say, its language model's part decides."""
    return bool(config.get("tie_word_embeddings", config["text_config"].get("tie_word_embeddings", False)))


def _dense(at: str, hidden: int, width: int, layers: tuple[int, ...]) -> tuple[Weights, ...]:
    return (
        *linear(f"{at}.gate_proj", "language", width, hidden, layers, bias=False),
        *linear(f"{at}.up_proj", "language", width, hidden, layers, bias=False),
        *linear(f"{at}.down_proj", "language", hidden, width, layers, bias=False),
    )


def _mixture(at: str, text: Mapping[str, Any], layers: tuple[int, ...]) -> tuple[Weights, ...]:
    if not layers:
        return ()
    hidden, number, width = text["hidden_size"], text["num_experts"], text["moe_intermediate_size"]
    return (
        Weights(name=f"{at}.gate.weight", part="language", shape=(number, hidden), kind="router", layers=layers),
        Weights(name=f"{at}.experts.gate_up_proj", part="language", shape=(number, 2 * width, hidden), kind="experts", layers=layers),
        Weights(name=f"{at}.experts.down_proj", part="language", shape=(number, hidden, width), kind="experts", layers=layers),
    )


def _sparse(text: Mapping[str, Any], layer: int) -> bool:
    every = text.get("decoder_sparse_step", 1)
    return bool(text.get("num_experts")) and layer not in text.get("mlp_only_layers", ()) and (layer + 1) % every == 0
