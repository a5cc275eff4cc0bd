"""Every tensor of a model, told from its configuration alone: no weights, no library.

What a plan needs of a family: shapes by name, the sizes of its two stacks of layers, and how many
tokens a picture becomes. tests/unit/models/test_anatomy.py compares each with the real class on the meta device.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from percasym.models.adapt import Part
from percasym.models.released import released, sizes

Kind = Literal["linear", "experts", "router", "patches", "head", "table", "vector"]
"""What is done with a tensor: `linear` (carries adapters), `experts` (a few of them per token), `router` and `patches` multiply each
token or patch, `head` each supervised token; a `table` is looked up, a `vector` scales or shifts."""


class AnatomyError(ValueError):
    """A configuration that cannot be found or read, said in one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """One tensor, or one of each layer."""

    name: str
    """Its name in the model, `{}` for the number of the layer."""
    part: Part
    shape: tuple[int, ...]
    kind: Kind
    layers: tuple[int, ...] | None = None
    """Layers that have it; None for a tensor that exists once."""

    @property
    def count(self) -> int:
        """How many of it there are."""
        return 1 if self.layers is None else len(self.layers)

    @property
    def numel(self) -> int:
        """Elements of all of them."""
        return self.count * math.prod(self.shape)

    @property
    def names(self) -> tuple[str, ...]:
        """Each tensor's own name."""
        return (self.name,) if self.layers is None else tuple(self.name.format(layer) for layer in self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The sizes of a stack of transformer layers."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    """Width of the hidden layer that one token passes through (all its experts together)."""
    gated: bool
    """A gate beside it, as in SwiGLU."""
    rms: bool
    """RMSNorm, on queries and keys too; else LayerNorm, on neither."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """What a picture costs."""

    patches: int
    """Positions in the vision tower."""
    tokens: int
    """Positions in the language model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """One model."""

    weights: tuple[Weights, ...]
    language: Stack
    vision: Stack
    vocabulary: int
    experts_frac: float
    """Share of the experts that one token passes through; 1 without a mixture."""
    picture: Callable[[int, int], Picture]
    """What a picture of (width, height) pixels costs."""
    directory: Path | None
    """Where the checkpoint lies on this disk; None when only its configuration is recorded here."""

    @property
    def numel(self) -> int:
        """Parameters; a head that shares its weights with the embeddings counts once."""
        return sum(weights.numel for weights in self.weights)


def linear(name: str, part: Part, rows: int, columns: int, layers: tuple[int, ...] | None, *, bias: bool) -> tuple[Weights, ...]:
    """The tensors of a linear layer from `columns` to `rows`."""
    weight = Weights(name=f"{name}.weight", part=part, shape=(rows, columns), kind="linear", layers=layers)
    return (weight, vector(f"{name}.bias", part, rows, layers)) if bias else (weight,)


def norm(name: str, part: Part, width: int, layers: tuple[int, ...] | None, *, bias: bool) -> tuple[Weights, ...]:
    """The tensors of a normalisation: LayerNorm with a bias, RMSNorm without."""
    names = ("weight", "bias") if bias else ("weight",)
    return tuple(vector(f"{name}.{kind}", part, width, layers) for kind in names)


def vector(name: str, part: Part, width: int, layers: tuple[int, ...] | None = None) -> Weights:
    """A tensor of one dimension."""
    return Weights(name=name, part=part, shape=(width,), kind="vector", layers=layers)


def configuration(family: str, path: str) -> tuple[Mapping[str, Any], Path | None]:
    """config.json of a checkpoint, and its directory where it lies on this disk; `path` is a directory or a hub id.

    Raises AnatomyError when nothing is recorded of it here: a plan asks no hub.
    """
    local = Path(path).expanduser()
    if (local / "config.json").is_file():
        return json.loads((local / "config.json").read_text(encoding="utf-8")), local
    for known in sizes(family):
        if released(family, known).hub == path:
            return released(family, known).config, None
    raise AnatomyError(
        f"Nothing is recorded of model.path={path}: it is no directory with a config.json, and no released size of {family} "
        f"({', '.join(sizes(family))}). Download it first, or give model.size."
    )
