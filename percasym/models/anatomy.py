"""The parameters of a model derived from its config.json alone: every tensor's name, shape and role, without loading weights.

`percasym plan` computes memory and FLOPs from it. Both families share the Qwen3 decoder below and add their vision tower and projector.
Unlike a model on the meta device it needs no torch; tests/unit/models/test_anatomy.py compares it with one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from percasym.config.files import read_json
from percasym.models import hub
from percasym.models.adapt import Part
from percasym.models.locate import CheckpointError, origin, released, released_sizes
from percasym.models.untrusted import check_checkpoint

Kind = Literal["linear", "experts", "router", "patches", "head", "table", "vector"]
"""How a tensor is used: `linear` (may carry adapters), `experts` (a subset per token), `router` and `patches` multiply each token or
patch, `head` multiplies each supervised token; a `table` is indexed, a `vector` scales or shifts."""

DECODER = "model.language_model"


class AnatomyError(ValueError):
    """A configuration that cannot be found or read; the message is one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One tensor, or the tensors of one name in a stack of layers."""

    name: str
    """Its name in the model, `{}` for the layer number."""
    part: Part
    shape: tuple[int, ...]
    kind: Kind
    layers: tuple[int, ...] | None = None
    """Layers that have it; None for a tensor that exists once."""

    @property
    def count(self) -> int:
        """Number of tensors."""
        return 1 if self.layers is None else len(self.layers)

    @property
    def numel(self) -> int:
        """Elements of all of them."""
        return self.count * math.prod(self.shape)

    @property
    def names(self) -> tuple[str, ...]:
        """The full name of each tensor."""
        return (self.name,) if self.layers is None else tuple(self.name.format(layer) for layer in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Dimensions of a stack of transformer layers."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    """Intermediate width per token (the sum over its active experts)."""
    gated: bool
    """Whether the MLP has a gate, as in SwiGLU."""
    rms: bool
    """RMSNorm, including queries and keys; otherwise LayerNorm, without norms of queries and keys."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTokens:
    """The sequence lengths of one image."""

    patches: int
    """Positions in the vision tower."""
    tokens: int
    """Positions in the language model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """All tensors of one model, and the dimensions of its two stacks."""

    weights: tuple[Weights, ...]
    language: Stack
    vision: Stack
    vocabulary: int
    experts_frac: float
    """Share of the experts that are active for one token; 1 for a dense model."""
    image_tokens: Callable[[int, int], ImageTokens]
    """Sequence lengths of an image of (width, height) pixels."""
    directory: Path | None
    """The local checkpoint directory; None when only a recorded configuration is available."""

    @property
    def numel(self) -> int:
        """Number of parameters; a head tied to the embeddings counts once."""
        return sum(weights.numel for weights in self.weights)


def configuration(family: str, path: str) -> tuple[Mapping[str, Any], Path | None]:
    """config.json of a checkpoint, and its directory if it is local; `path` is a directory or a hub id.

    Raises AnatomyError when `path` is neither a local directory nor a released size: planning never contacts the hub.
    """
    local = Path(origin(path)).expanduser()
    if (local / "config.json").is_file():
        check_checkpoint(local)
        return read_json(local / "config.json"), local
    for size in released_sizes(family):
        if released(family, size).hub == hub.parts(path)[0]:
            return released(family, size).config, None
    raise AnatomyError(
        f"Nothing is recorded of model.path={path}: it is no directory with a config.json, and no released size of {family} "
        f"({', '.join(released_sizes(family))}). Download it first, or give model.size."
    )


def anatomy_of(build: Callable[[Mapping[str, Any], Path | None], Anatomy], family: str, path: str) -> Anatomy:
    """What `build` makes of the configuration of a checkpoint.

    Raises AnatomyError as `configuration` does, and for a configuration without a number that is needed, or with another type.
    """
    values, folder = configuration(family, path)
    try:
        found = build(values, folder)
        if found.numel + found.image_tokens(64, 64).tokens <= 0:  # Calculates with each number.
            raise ValueError("it has no weights")
        return found
    except CheckpointError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:100]
        raise AnatomyError(f"The configuration of {path} describes no model of {family} ({reason}). Check model.path.") from error


def linear(name: str, part: Part, rows: int, columns: int, layers: tuple[int, ...] | None, *, bias: bool) -> tuple[Weights, ...]:
    """The tensors of a linear layer from `columns` to `rows` features."""
    weight = Weights(name=f"{name}.weight", part=part, shape=(rows, columns), kind="linear", layers=layers)
    return (weight, vector(f"{name}.bias", part, rows, layers)) if bias else (weight,)


def norm(name: str, part: Part, width: int, layers: tuple[int, ...] | None, *, bias: bool) -> tuple[Weights, ...]:
    """The tensors of a normalisation layer: LayerNorm has a bias, RMSNorm has none."""
    names = ("weight", "bias") if bias else ("weight",)
    return tuple(vector(f"{name}.{kind}", part, width, layers) for kind in names)


def vector(name: str, part: Part, width: int, layers: tuple[int, ...] | None = None) -> Weights:
    """A one-dimensional tensor."""
    return Weights(name=name, part=part, shape=(width,), kind="vector", layers=layers)


# The Qwen3 decoder, dense or mixture of experts; `text` is the `text_config` of a config.json.


def decoder(text: Mapping[str, Any], *, tied: bool) -> tuple[Weights, ...]:
    """Embeddings, layers, final norm and head."""
    hidden, width, layers = text["hidden_size"], text["head_dim"], tuple(range(text["num_hidden_layers"]))
    queries, keys = text["num_attention_heads"] * width, text["num_key_value_heads"] * width
    bias = text.get("attention_bias", False)
    at = DECODER + ".layers.{}"
    vocabulary = (text["vocab_size"], hidden)
    embeddings = Weights(name=f"{DECODER}.embed_tokens.weight", part="language", shape=vocabulary, kind="head" if tied else "table")
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
        *norm(f"{DECODER}.norm", "language", hidden, None, bias=False),
        *head,
    )


def decoder_stack(text: Mapping[str, Any]) -> Stack:
    """Dimensions of the decoder's layers; of a sparse layer in a mixture of experts."""
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
    """Share of the experts that are active for one token."""
    return text["num_experts_per_tok"] / text["num_experts"] if text.get("num_experts") else 1.0


def is_tied(config: Mapping[str, Any]) -> bool:
    """Whether head and embeddings share one tensor; `text_config` decides if the top level of the file does not."""
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
