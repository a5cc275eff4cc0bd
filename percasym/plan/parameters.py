"""How many numbers a run holds, and how many of them it trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from percasym.models.adapt import PARTS, Adaptation, Lora, Part
from percasym.models.anatomy.base import Anatomy, Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Elements, not bytes."""

    base: Mapping[Part, int]
    """Of the checkpoint, by part."""
    adapters: Mapping[Part, int]
    trained: Mapping[Part, int]
    """What has a gradient: a part's own weights, or the adapters on it."""
    multiplied: int
    """Float32 weights of the trunk that multiply each token: under bfloat16 a rounded copy of them lives through a forward."""
    resting: int
    """Frozen linear weights under adapters: held in the computing type, for nothing updates them."""

    @property
    def total(self) -> int:
        """All that a rank without ZeRO holds."""
        return sum(self.base.values()) + sum(self.adapters.values())

    @property
    def num_trained(self) -> int:
        """All that the optimizer sees."""
        return sum(self.trained.values())


def count(anatomy: Anatomy, adaptation: Adaptation) -> Parameters:
    """The numbers of a model under its adapters and frozen parts."""
    base = {part: sum(weights.numel for weights in anatomy.weights if weights.part == part) for part in PARTS}
    lora = adaptation.lora
    adapters = {part: _adapters(anatomy, lora, part) for part in PARTS}
    own = {part: 0 if lora or part in adaptation.freeze else base[part] for part in PARTS}
    return Parameters(
        base=base,
        adapters=adapters,
        trained=adapters if lora else own,
        multiplied=0 if lora else sum(weights.numel for weights in anatomy.weights if weights.kind in ("linear", "experts", "patches")),
        resting=sum(weights.numel for weights in anatomy.weights if rests(weights)) if lora else 0,
    )


def rests(weights: Weights) -> bool:
    """Whether weights under adapters are held in the computing type: those of linear layers, a head of its own among them."""
    return weights.kind == "linear" or weights.name == "lm_head.weight"


def _adapters(anatomy: Anatomy, lora: Lora | None, part: Part) -> int:
    if lora is None or part not in lora.targets:
        return 0
    chosen = (weights for weights in anatomy.weights if weights.kind == "linear" and weights.part == part)
    return sum(weights.count * lora.rank * sum(weights.shape) for weights in chosen)
