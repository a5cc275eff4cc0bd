"""Norms and inner products of gradients of any size, accumulated in float64.

Unlike `torch.dot` on a flat float32 tensor, whose error grows with its length (5 % at 1e9 elements on one CPU thread) and which CUDA
refuses above 2^31 - 1 elements, both factors are converted to float64 in chunks: every product is exact, and so is the sum to about 1e-13.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

CHUNK_NUMEL = {"cpu": 2**18, "cuda": 2**24}
"""Elements converted at once: within a core's cache on a CPU; on a GPU 128 MiB for each factor, and 60 kernels for 1e9 elements."""

Parts = Sequence[Tensor | None]
"""A gradient as one rank holds it, in a fixed order of parameters; None for a parameter without a gradient."""


def squared_norm(parts: Parts) -> Tensor:
    """|parts|^2, a float64 scalar on the device of the parts; a missing part is zero."""
    return _total([torch.dot(chunk, chunk) for part in parts if part is not None for chunk in _chunks(part)], parts)


def gramian(left: Parts, right: Parts) -> Tensor:
    """[3] float64: <left, left>, <right, right> and <left, right>; a missing part is zero. Each chunk is converted once for all three."""
    lefts, rights, crosses = list[Tensor](), list[Tensor](), list[Tensor]()
    for one, other in zip(left, right, strict=True):
        if one is None or other is None:
            lefts.append(squared_norm([one]))
            rights.append(squared_norm([other]))
            continue
        for a, b in zip(_chunks(one), _chunks(other), strict=True):
            lefts.append(torch.dot(a, a))
            rights.append(torch.dot(b, b))
            crosses.append(torch.dot(a, b))
    return torch.stack([_total(products, [*left, *right]) for products in (lefts, rights, crosses)])


def _chunks(part: Tensor) -> Iterator[Tensor]:
    """A tensor as flat float64 pieces, one at a time."""
    return (chunk.double() for chunk in part.flatten().split(CHUNK_NUMEL["cpu" if part.device.type == "cpu" else "cuda"]))


def _total(products: Sequence[Tensor], parts: Parts) -> Tensor:
    """The sum of float64 scalars, on the device of `parts`."""
    device = next((part.device for part in parts if part is not None), None)
    if not products:
        return torch.zeros((), dtype=torch.float64, device=device)
    return torch.stack([product.to(device) for product in products]).sum()
