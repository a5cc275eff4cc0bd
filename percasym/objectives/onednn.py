"""Linear layers of float32 weights on a CPU through oneDNN, forward and backward.

PyTorch computes a float32 matrix product on a CPU with MKL, which on AMD processors uses half of the vector width. oneDNN uses all of it:
the same float32 product at 1.6 to 2.4 times the rate there. On Intel's processors oneDNN is slower at a hundred rows and about equal at
thousands (`benchmarks/linear.py`), and a layer stays PyTorch's own. A layer may also round both factors to bfloat16, through oneDNN on any
processor, which never does that to float32 by itself: sums, results and weights stay float32. Shapes: N rows, I inputs, O outputs.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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


CPUINFO = Path("/proc/cpuinfo")
"""What Linux says of each processor, the maker first; a machine of 200 processors takes long to write all of it."""


def _is_intel() -> bool:
    """Whether this is a processor of Intel; by its name and not by a measurement, which could differ between a run and its resumption."""
    if not CPUINFO.is_file():
        return "GenuineIntel" in platform.processor()
    with CPUINFO.open(encoding="utf-8", errors="replace") as about:
        return "GenuineIntel" in about.read(512)


FASTER = AVAILABLE and not _is_intel()
"""Whether oneDNN multiplies float32 faster than PyTorch's own library here."""


def multiplies_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself (AVX512_BF16 or AMX); oneDNN has no such product for another."""
    return AVAILABLE and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def linear(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """states @ weight.T + bias, [..., O] from [..., I] and [O, I]; float32, on the CPU, without gradient."""
    return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")


def product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right, [N, O] from [N, I] and [I, O], without gradient; through oneDNN where that is faster."""
    return linear(left, right.t()) if FASTER and _eligible(left, right) else left @ right


def _eligible(left: Tensor, right: Tensor) -> bool:
    """Whether both are float32, on the CPU, and large enough."""
    float32 = left.dtype == right.dtype == torch.float32 and left.device.type == "cpu"
    return float32 and left.numel() >= MIN_ROWS * left.shape[-1]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, factors: torch.dtype) -> Tensor:
        states, weight = states.to(factors), weight.to(factors)
        ctx.save_for_backward(states, weight)
        if factors == torch.float32:
            return linear(states, weight, bias)
        found = linear(states, weight).float()
        return found if bias is None else found.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        states, weight = ctx.saved_tensors
        rows_ni, total = states.reshape(-1, states.shape[-1]), upstream.reshape(-1, upstream.shape[-1])
        rows_no = total.to(states.dtype)
        needs_states, needs_weight, needs_bias, _ = ctx.needs_input_grad
        return (
            linear(rows_no, weight.t()).float().view_as(states) if needs_states else None,
            _transposed_product(rows_no, rows_ni).float() if needs_weight else None,
            total.sum(0) if needs_bias else None,
            None,
        )


def _transposed_product(left: Tensor, right: Tensor) -> Tensor:
    """left.T @ right, [O, I] from [N, O] and [N, I]; in bfloat16 PyTorch's own operator is faster, which reads both as they lie."""
    return linear(left.t(), right.t()) if left.dtype == torch.float32 else left.t() @ right


class OneDnnLinear(nn.Linear):
    """`nn.Linear` that uses oneDNN where it is faster, with the same parameters, parameter names and result."""

    factors: torch.dtype = torch.float32
    """The type to which both factors are rounded where oneDNN is used."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., O] from [..., I]."""
        rounds = self.factors != torch.float32
        if (FASTER or rounds) and _eligible(input, self.weight) and not torch.is_autocast_enabled("cpu"):
            if torch.is_grad_enabled() or rounds:
                return _Linear.apply(input, self.weight, self.bias, self.factors)
            return linear(input, self.weight, self.bias)
        return super().forward(input)


def with_onednn(model: PreTrainedModel) -> PreTrainedModel:
    """The same model, with oneDNN in its linear layers; unchanged if this build of PyTorch lacks the operator."""
    for module in model.modules():
        if AVAILABLE and type(module) is nn.Linear:
            module.__class__ = OneDnnLinear
    return model


def round_factors(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """From now on the linear layers of `model` round both factors to `dtype`."""
    for module in model.modules():
        if isinstance(module, OneDnnLinear):
            module.factors = dtype


@contextmanager
def unrounded(model: PreTrainedModel) -> Iterator[None]:
    """Within the context its linear layers compute in float32 all through."""
    layers = [(module, module.factors) for module in model.modules() if isinstance(module, OneDnnLinear)]
    try:
        for layer, _ in layers:
            layer.factors = torch.float32
        yield
    finally:
        for layer, factors in layers:
            layer.factors = factors
