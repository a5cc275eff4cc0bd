"""Tokens and FLOPs of one optimizer step, over all ranks.

A matrix product of [m, k] and [k, n] is 2mkn FLOPs; attention counts all pairs of positions, as is usual for model FLOP utilisation
(causal kernels do half of it). Norms, activation functions and the optimizer are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from percasym.models.adapt import PARTS, Part
from percasym.models.anatomy import Anatomy, Stack, Weights
from percasym.plan.inputs import Layout, Lengths, Parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One optimizer step."""

    tokens: float
    """Positions in the language model, without padding."""
    supervised: float
    """Positions with a loss."""
    flops: float
    """All FLOPs."""
    model_flops: float
    """Model FLOPs: without recomputed activations and without measuring span gradients."""
    sampling_flops: float = 0.0
    """The part of both spent on sampling rollouts; diagnosis rollouts and the queries of rewards are not counted."""


def work(anatomy: Anatomy, parameters: Parameters, layout: Layout, lengths: Lengths) -> Work:
    """The cost of a step; in RL of all epochs on one batch of rollouts, which are assumed as long as demonstrations."""
    supervised, rows, sampled = lengths.perception + lengths.reasoning, layout.step_rows, layout.sampled
    model_flops, flops = _training_flops(anatomy, parameters, layout, lengths, lengths.total, supervised)
    if layout.measures_gradients:  # Perception's gradient: of its loss on the prefix, of its reward on whole rollouts.
        positions, with_loss = (lengths.total, supervised) if sampled else (lengths.prefix, lengths.perception)
        flops += _training_flops(anatomy, parameters, layout, lengths, positions, with_loss)[1]
    sampling = 0.0
    if sampled:
        forward = forward_flops(anatomy, parameters, lengths.total, lengths, supervised=supervised)
        prompt = forward_flops(anatomy, parameters, lengths.prompt + lengths.picture, lengths, supervised=0)
        reference = forward if sampled.reference else 0.0
        sampling = forward - prompt + prompt / sampled.group_size  # A group shares the prefill.
        model_flops, flops = (sampled.epochs * (training + reference) + sampling for training in (model_flops, flops))
    return Work(
        tokens=rows * lengths.total,
        supervised=rows * supervised,
        flops=rows * flops,
        model_flops=rows * model_flops,
        sampling_flops=rows * sampling,
    )


def forward_flops(anatomy: Anatomy, parameters: Parameters, positions: float, lengths: Lengths, *, supervised: float) -> float:
    """Forward FLOPs of one sample; the head is applied at `supervised` positions."""
    by_part = _positions(positions, lengths)
    total = sum(_product(anatomy, weights, by_part, supervised) for weights in anatomy.weights)
    total += sum(2.0 * parameters.adapters[part] * num for part, num in by_part.items())
    return total + _attention(anatomy.language, positions) + _attention(anatomy.vision, lengths.patches)


def sample_flops(
    anatomy: Anatomy, parameters: Parameters, positions: float, lengths: Lengths, *, supervised: float, adapters: bool
) -> float:
    """Forward and backward FLOPs of one sample, without recomputation.

    The backward pass through a layer costs one forward for the input gradient and one for the weight gradient, if each is needed.
    """
    by_part = _positions(positions, lengths)
    trained = {part: parameters.trained[part] > 0 for part in PARTS}
    input_grad: dict[Part, bool] = {"language": True, "projector": trained["vision"] or trained["projector"], "vision": trained["vision"]}
    total = 0.0
    for weights in anatomy.weights:
        times = 1 + (input_grad[weights.part] and weights.kind != "patches") + (trained[weights.part] and not adapters)
        total += times * _product(anatomy, weights, by_part, supervised)
    total += sum(6.0 * parameters.adapters[part] * num for part, num in by_part.items())
    total += (1 + 2) * _attention(anatomy.language, positions)
    return total + (1 + 2 * trained["vision"]) * _attention(anatomy.vision, lengths.patches)


def _positions(positions: float, lengths: Lengths) -> dict[Part, float]:
    """Positions of one sample in each part."""
    return {"language": positions, "projector": lengths.picture, "vision": lengths.patches}


def _product(anatomy: Anatomy, weights: Weights, by_part: Mapping[Part, float], supervised: float) -> float:
    """FLOPs of one product with these weights at all of their positions."""
    if weights.kind in ("table", "vector"):
        return 0.0
    frac = anatomy.experts_frac if weights.kind == "experts" else 1.0
    return 2 * frac * weights.numel * (supervised if weights.kind == "head" else by_part[weights.part])


def _training_flops(
    anatomy: Anatomy, parameters: Parameters, layout: Layout, lengths: Lengths, positions: float, supervised: float
) -> tuple[float, float]:
    """Forward and backward FLOPs of one sample, without and with recomputation."""
    once = sample_flops(anatomy, parameters, positions, lengths, supervised=supervised, adapters=layout.adapters)
    return once, once + (_recomputed(anatomy, parameters, positions, lengths) if layout.checkpointing else 0)


def _recomputed(anatomy: Anatomy, parameters: Parameters, positions: float, lengths: Lengths) -> float:
    """The second forward of the layers of each stack under gradient checkpointing."""
    total = _attention(anatomy.language, positions) + _layers(anatomy, "language", positions)
    if parameters.trained["vision"]:
        total += _attention(anatomy.vision, lengths.patches) + _layers(anatomy, "vision", lengths.patches)
    return total


def _layers(anatomy: Anatomy, part: Part, positions: float) -> float:
    layers = [w for w in anatomy.weights if w.part == part and w.layers is not None and w.kind in ("linear", "experts", "router")]
    return sum(2 * w.numel * positions * (anatomy.experts_frac if w.kind == "experts" else 1.0) for w in layers)


def _attention(stack: Stack, positions: float) -> float:
    """Attention scores and weighted sum of values, one forward."""
    return 4 * stack.layers * stack.heads * stack.head_dim * positions**2
