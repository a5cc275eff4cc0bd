"""The gradients of the two spans: kept in turn, multiplied with each other, and combined.

A rank keeps its part of a gradient summed over ranks: all of it, or, under ZeRO, a partition. Inner products of the parts add up over
ranks, and a weighted sum of gradients is that of their parts, so no gradient is gathered. An exact Gramian costs the memory of one more
part of a gradient and an all-reduce of three numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from percasym.engine.inner_products import Parts, gramian
from percasym.types import Span


class SpanGradients:
    """At most one gradient for each span."""

    def __init__(self) -> None:
        self._kept: dict[Span, Parts] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, span: Span, parts: Parts) -> None:
        """Keep `parts` without a copy; `combined` overwrites them."""
        assert span not in self._kept, f"the gradient of {span} is already kept"
        self._kept[span] = parts

    def kept(self, span: Span) -> Parts:
        """The gradient of `span`, without a copy."""
        return self._kept[span]

    def products(self) -> Tensor:
        """[3] float64: <p, p>, <r, r> and <p, r> of this rank's parts."""
        return gramian(self._kept[Span.perception], self._kept[Span.reasoning])

    def combined(self, weights: Mapping[Span, float]) -> Parts:
        """The weighted sum of the kept gradients, computed in place of the last, which alone may be in full precision.

        None is kept afterwards.
        """
        kept, self._kept = dict(reversed(self._kept.items())), {}
        return [_weighted(parts, [weights[span] for span in kept]) for parts in zip(*kept.values(), strict=True)]


def _weighted(parts: Parts, weights: Sequence[float]) -> Tensor | None:
    result: Tensor | None = None
    for part, weight in zip(parts, weights, strict=True):
        if part is not None:
            result = part.mul_(weight) if result is None else result.add_(part, alpha=weight)
    return result
