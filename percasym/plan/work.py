"""Tokens and floating-point operations of one optimizer step, over all ranks.

A multiplication of [m, k] by [k, n] is 2mkn operations; attention counts all pairs of positions, as is usual for model FLOP
utilisation (kernels that skip the future do half of it). Norms, activations and the optimizer are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from percasym.models.adapt import PARTS, Part
from percasym.models.anatomy.base import Anatomy, Stack
from percasym.plan.layout import Layout
from percasym.plan.lengths import Lengths
from percasym.plan.parameters import Parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One optimizer step."""

    tokens: float
    """Positions in the language model, padding not counted."""
    supervised: float
    """Those with a loss."""
    flops: float
    """All operations."""
    model_flops: float
    """Those that the model needs whatever the memory: without computing activations again, and without measuring gradients."""


def work(anatomy: Anatomy, parameters: Parameters, layout: Layout, lengths: Lengths) -> Work:
    """What a step costs."""
    supervised = lengths.perception + lengths.reasoning
    needed = sample_flops(anatomy, parameters, lengths.total, lengths, supervised=supervised, adapters=layout.adapters)
    done = needed + (_recomputed(anatomy, parameters, lengths.total, lengths) if layout.checkpointing else 0)
    if layout.measures_gradients:  # Perception's own gradient, from the prefix.
        done += sample_flops(anatomy, parameters, lengths.prefix, lengths, supervised=lengths.perception, adapters=layout.adapters) + (
            _recomputed(anatomy, parameters, lengths.prefix, lengths) if layout.checkpointing else 0
        )
    rows = layout.step_rows
    return Work(tokens=rows * lengths.total, supervised=rows * supervised, flops=rows * done, model_flops=rows * needed)


def sample_flops(
    anatomy: Anatomy, parameters: Parameters, positions: float, lengths: Lengths, *, supervised: float, adapters: bool
) -> float:
    """Forward and backward of one sample, nothing computed twice.

    The backward pass through a layer costs one forward for the gradient of its input and one for that of its weights, where each is needed.
    """
    seen: dict[Part, float] = {"language": positions, "projector": lengths.picture, "vision": lengths.patches}
    trains = {part: parameters.trained[part] > 0 for part in PARTS}
    passes_on: dict[Part, bool] = {"language": True, "projector": trains["vision"] or trains["projector"], "vision": trains["vision"]}
    total = 0.0
    for weights in anatomy.weights:
        if weights.kind in ("table", "vector"):
            continue
        times = 1 + (passes_on[weights.part] and weights.kind != "patches") + (trains[weights.part] and not adapters)
        frac = anatomy.experts_frac if weights.kind == "experts" else 1.0
        total += 2 * times * frac * weights.numel * (supervised if weights.kind == "head" else seen[weights.part])
    total += sum(6.0 * parameters.adapters[part] * at for part, at in seen.items())
    total += (1 + 2) * _attention(anatomy.language, positions)
    return total + (1 + 2 * trains["vision"]) * _attention(anatomy.vision, lengths.patches)


def _recomputed(anatomy: Anatomy, parameters: Parameters, positions: float, lengths: Lengths) -> float:
    """The second forward of the layers of each stack that keeps only its inputs."""
    total = _attention(anatomy.language, positions) + _layers(anatomy, "language", positions)
    if parameters.trained["vision"]:
        total += _attention(anatomy.vision, lengths.patches) + _layers(anatomy, "vision", lengths.patches)
    return total


def _layers(anatomy: Anatomy, part: Part, positions: float) -> float:
    layers = [w for w in anatomy.weights if w.part == part and w.layers is not None and w.kind in ("linear", "experts", "router")]
    return sum(2 * w.numel * positions * (anatomy.experts_frac if w.kind == "experts" else 1.0) for w in layers)


def _attention(stack: Stack, positions: float) -> float:
    """Scores and weighted sum of values, one forward."""
    return 4 * stack.layers * stack.heads * stack.head_dim * positions**2
