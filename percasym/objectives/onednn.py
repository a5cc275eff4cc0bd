"""Linear layers in float32 on a CPU through oneDNN, forward and backward.

PyTorch computes a float32 matrix product on a CPU with MKL, which on AMD processors uses half of the vector width. oneDNN uses all of it:
the same float32 product at 1.6 to 2.4 times the rate there, and the same rate elsewhere (`benchmarks/linear.py`). Shapes: N rows, I inputs,
O outputs.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

MIN_ROWS = 64
"""With fewer rows the overhead of the call is larger than the gain (measured: 1.1 to 1.7 times as long at 32 rows of width 128)."""


# oneDNN caches a primitive of half a megabyte for each number of rows, by default 1,024 of them twice. Read at the first product.
for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, "64")

AVAILABLE = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
"""Whether this build of PyTorch has the operator."""


def linear(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """states @ weight.T + bias, [..., O] from [..., I] and [O, I]; float32, on the CPU, without gradient."""
    return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")


def product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right, [N, O] from [N, I] and [I, O], without gradient; through oneDNN where that is faster."""
    return linear(left, right.t()) if _eligible(left, right) else left @ right


def _eligible(left: Tensor, right: Tensor) -> bool:
    """Whether both are float32, on the CPU, and large enough."""
    float32 = left.dtype == right.dtype == torch.float32 and left.device.type == "cpu"
    return float32 and AVAILABLE and left.numel() >= MIN_ROWS * left.shape[-1]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(states, weight)
        return linear(states, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        states, weight = ctx.saved_tensors
        rows_no, rows_ni = upstream.reshape(-1, upstream.shape[-1]), states.reshape(-1, states.shape[-1])
        needs_states, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            linear(rows_no, weight.t()).view_as(states) if needs_states else None,
            linear(rows_no.t(), rows_ni.t()) if needs_weight else None,
            rows_no.sum(0) if needs_bias else None,
        )


class OneDnnLinear(nn.Linear):
    """`nn.Linear` that uses oneDNN where it is faster, with the same parameters, parameter names and result."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., O] from [..., I]."""
        if _eligible(input, self.weight) and not torch.is_autocast_enabled("cpu"):
            arguments = input, self.weight, self.bias
            return _Linear.apply(*arguments) if torch.is_grad_enabled() else linear(*arguments)
        return super().forward(input)


def with_onednn(model: PreTrainedModel) -> PreTrainedModel:
    """The same model, with oneDNN in its linear layers; unchanged if this build of PyTorch lacks the operator."""
    for module in model.modules():
        if AVAILABLE and type(module) is nn.Linear:
            module.__class__ = OneDnnLinear
    return model
