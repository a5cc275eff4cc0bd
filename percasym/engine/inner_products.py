"""Norms and inner products of gradients of any size, accumulated in float64.

Unlike `torch.dot` on a flat float32 tensor, whose error grows with its length (5 % at 3e8 elements on one CPU thread) and which CUDA
refuses above 2^31 - 1 elements, both factors are converted to float64 in chunks: every product is exact, and so is the sum to about 1e-13.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

CHUNK_NUMEL = {"cpu": 2**18, "cuda": 2**24}
"""Elements converted at once: within a core's cache on a CPU; on a GPU 128 MiB for each factor, and 60 conversions for 1e9 elements."""

Parts = Sequence[Tensor | None]
"""A gradient as one rank holds it, in a fixed order of parameters; None for a parameter without a gradient."""


def squared_norm(parts: Parts) -> Tensor:
    """|parts|^2, a float64 scalar on the device of the parts; a missing part is zero."""
    buffer = _buffer(parts)
    total = buffer.new_zeros(())
    for part in parts:
        for chunk in _chunks(part, buffer):
            total += torch.dot(chunk, chunk)
    return total


def gramian(left: Parts, right: Parts) -> Tensor:
    """[3] float64: <left, left>, <right, right> and <left, right>; a missing part is zero. Each chunk is converted once for all three."""
    one, other = _buffer([*left, *right]), _buffer([*left, *right])
    lefts, rights, crosses = one.new_zeros(3)
    for mine, theirs in zip(left, right, strict=True):
        if mine is None or theirs is None:
            lefts += squared_norm([mine])
            rights += squared_norm([theirs])
            continue
        for a, b in zip(_chunks(mine, one), _chunks(theirs, other), strict=True):
            lefts += torch.dot(a, a)
            rights += torch.dot(b, b)
            crosses += torch.dot(a, b)
    return torch.stack([lefts, rights, crosses])


def _buffer(parts: Parts) -> Tensor:
    """Room for one chunk in float64. One for all chunks: a new one for each leaves the C allocator with holes that it cannot fill."""
    sizes = [(part.numel(), part.device) for part in parts if part is not None]
    if not sizes:
        return torch.empty(0, dtype=torch.float64)
    device = sizes[0][1]
    numel = min(max(size for size, _ in sizes), CHUNK_NUMEL["cpu" if device.type == "cpu" else "cuda"])
    return torch.empty(numel, dtype=torch.float64, device=device)


def _chunks(part: Tensor | None, buffer: Tensor) -> Iterator[Tensor]:
    """A tensor as flat pieces in `buffer`, one at a time: each is overwritten by the next."""
    if part is not None and part.numel():
        for chunk in part.flatten().split(len(buffer)):
            yield buffer[: len(chunk)].copy_(chunk)
