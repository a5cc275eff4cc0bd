"""The gradients of the two spans, set aside in turn, measured against each other, and combined.

Both engines hold their open gradient in `parameter.grad`, so setting it aside moves references and
copies nothing: the price of an exact Gramian is one more set of gradients in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from percasym.balance.base import Gramian
from percasym.types import Span


class Stash:
    """Up to one gradient per span, over parameters whose `grad` is the open gradient."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters
        self._kept: dict[Span, list[Tensor | None]] = {}

    def take(self, span: Span) -> None:
        """The open gradient is now that of `span`, and an empty one is open."""
        assert span not in self._kept, f"the gradient of {span} is already set aside"
        self._kept[span] = [parameter.grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None

    def gramian(self) -> Gramian:
        """Inner products of the two gradients, summed over parameters in float64."""
        perception, reasoning = self._kept[Span.perception], self._kept[Span.reasoning]
        products = torch.stack([_dot(perception, perception), _dot(reasoning, reasoning), _dot(perception, reasoning)])
        own, other, cross = products.tolist()
        return Gramian(perception=own, reasoning=other, cross=cross)

    def combine(self, weights: Mapping[Span, float]) -> None:
        """The open gradient becomes the weighted sum of those set aside, which are dropped; it is written over them."""
        assert all(parameter.grad is None for parameter in self._parameters), "a gradient is still open"
        for parameter, *parts in zip(self._parameters, *self._kept.values(), strict=True):
            for span, part in zip(self._kept, parts, strict=True):
                if part is None:  # This span does not reach the parameter.
                    continue
                part.mul_(weights[span])
                parameter.grad = part if parameter.grad is None else parameter.grad.add_(part)
        self._kept.clear()


def _dot(left: Sequence[Tensor | None], right: Sequence[Tensor | None]) -> Tensor:
    """<left, right>, a float64 scalar; a missing part is zero."""
    products = [torch.dot(a.flatten(), b.flatten()) for a, b in zip(left, right, strict=True) if a is not None and b is not None]
    return torch.stack(products).double().sum() if products else torch.zeros((), dtype=torch.float64)
