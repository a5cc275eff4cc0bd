"""Tokens and floating-point operations of one optimizer step, over all ranks.

A multiplication of [m, k] by [k, n] is 2mkn operations; attention counts all pairs of positions, as is usual for model FLOP
utilisation (kernels that skip the future do half of it). Norms, activations and the optimizer are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from percasym.models.adapt import PARTS, Part
from percasym.models.anatomy.base import Anatomy, Stack, Weights
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
    sampling_flops: float = 0.0
    """Of them, those that sample what is learned from; what a diagnosis samples beside it, and what rewards ask, is not counted."""


def work(anatomy: Anatomy, parameters: Parameters, layout: Layout, lengths: Lengths) -> Work:
    """What a step costs; in RL a round with all its epochs, of rollouts as long as demonstrations are."""
    supervised, rows, sampled = lengths.perception + lengths.reasoning, layout.step_rows, layout.sampled
    needed, done = _learned(anatomy, parameters, layout, lengths, lengths.total, supervised)
    if layout.measures_gradients:  # Perception's own gradient: of its loss from the prefix, of its reward from whole rollouts.
        positions, seen = (lengths.total, supervised) if sampled else (lengths.prefix, lengths.perception)
        done += _learned(anatomy, parameters, layout, lengths, positions, seen)[1]
    sampling = 0.0
    if sampled:
        forward = forward_flops(anatomy, parameters, lengths.total, lengths, supervised=supervised)
        prompt = forward_flops(anatomy, parameters, lengths.prompt + lengths.picture, lengths, supervised=0)
        compared = forward if sampled.reference else 0.0
        sampling = forward - prompt + prompt / sampled.group_size  # Siblings share the prefill.
        needed, done = (sampled.epochs * (learning + compared) + sampling for learning in (needed, done))
    return Work(
        tokens=rows * lengths.total,
        supervised=rows * supervised,
        flops=rows * done,
        model_flops=rows * needed,
        sampling_flops=rows * sampling,
    )


def forward_flops(anatomy: Anatomy, parameters: Parameters, positions: float, lengths: Lengths, *, supervised: float) -> float:
    """Forward of one sample; the head is applied at `supervised` positions."""
    seen = _seen(positions, lengths)
    total = sum(_product(anatomy, weights, seen, supervised) for weights in anatomy.weights)
    total += sum(2.0 * parameters.adapters[part] * at for part, at in seen.items())
    return total + _attention(anatomy.language, positions) + _attention(anatomy.vision, lengths.patches)


def sample_flops(
    anatomy: Anatomy, parameters: Parameters, positions: float, lengths: Lengths, *, supervised: float, adapters: bool
) -> float:
    """Forward and backward of one sample, nothing computed twice.

    The backward pass through a layer costs one forward for the gradient of its input and one for that of its weights, where each is needed.
    """
    seen = _seen(positions, lengths)
    trains = {part: parameters.trained[part] > 0 for part in PARTS}
    passes_on: dict[Part, bool] = {"language": True, "projector": trains["vision"] or trains["projector"], "vision": trains["vision"]}
    total = 0.0
    for weights in anatomy.weights:
        times = 1 + (passes_on[weights.part] and weights.kind != "patches") + (trains[weights.part] and not adapters)
        total += times * _product(anatomy, weights, seen, supervised)
    total += sum(6.0 * parameters.adapters[part] * at for part, at in seen.items())
    total += (1 + 2) * _attention(anatomy.language, positions)
    return total + (1 + 2 * trains["vision"]) * _attention(anatomy.vision, lengths.patches)


def _seen(positions: float, lengths: Lengths) -> dict[Part, float]:
    """Positions that each part sees of one sample."""
    return {"language": positions, "projector": lengths.picture, "vision": lengths.patches}


def _product(anatomy: Anatomy, weights: Weights, seen: Mapping[Part, float], supervised: float) -> float:
    """Multiplying by these weights once, wherever they are applied."""
    if weights.kind in ("table", "vector"):
        return 0.0
    frac = anatomy.experts_frac if weights.kind == "experts" else 1.0
    return 2 * frac * weights.numel * (supervised if weights.kind == "head" else seen[weights.part])


def _learned(
    anatomy: Anatomy, parameters: Parameters, layout: Layout, lengths: Lengths, positions: float, supervised: float
) -> tuple[float, float]:
    """Forward and backward of one sample, without and with what is computed again."""
    once = sample_flops(anatomy, parameters, positions, lengths, supervised=supervised, adapters=layout.adapters)
    return once, once + (_recomputed(anatomy, parameters, positions, lengths) if layout.checkpointing else 0)


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
