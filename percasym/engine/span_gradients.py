"""The gradients of the two spans, set aside in turn, measured against each other, and combined.

What is set aside is what this rank keeps of a summed gradient: all of it, or its own part. Inner products
of parts add up over ranks, and a weighted sum of gradients is that of their parts; so nothing is gathered,
and the price of an exact Gramian is one more part of a gradient in memory and three numbers on the wire.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from percasym.types import Span

Parts = Sequence[Tensor | None]
"""A gradient as one rank holds it, in an order that stays; None where it does not reach a parameter."""


class SpanGradients:
    """Up to one gradient per span."""

    def __init__(self) -> None:
        self._kept: dict[Span, Parts] = {}

    def keep(self, span: Span, parts: Parts) -> None:
        """Set `parts` aside; they belong to the stash from now on."""
        assert span not in self._kept, f"the gradient of {span} is already set aside"
        self._kept[span] = parts

    def products(self) -> Tensor:
        """[3] float64: <p, p>, <r, r> and <p, r> of the parts at hand."""
        perception, reasoning = self._kept[Span.perception], self._kept[Span.reasoning]
        return torch.stack([dot(perception, perception), dot(reasoning, reasoning), dot(perception, reasoning)])

    def combined(self, weights: Mapping[Span, float]) -> Parts:
        """The weighted sum of what was set aside, written over it; the stash is empty afterwards."""
        kept, self._kept = self._kept, {}
        return [_weighted(parts, [weights[span] for span in kept]) for parts in zip(*kept.values(), strict=True)]


def dot(left: Parts, right: Parts) -> Tensor:
    """<left, right>, a float64 scalar; a missing part is zero."""
    products = [torch.dot(a.flatten(), b.flatten()) for a, b in zip(left, right, strict=True) if a is not None and b is not None]
    return torch.stack(products).double().sum() if products else torch.zeros((), dtype=torch.float64)


def _weighted(parts: Parts, weights: Sequence[float]) -> Tensor | None:
    result: Tensor | None = None
    for part, weight in zip(parts, weights, strict=True):
        if part is not None:
            result = part.mul_(weight) if result is None else result.add_(part, alpha=weight)
    return result
