"""NGDiff (normalised gradient difference): both weighted gradients have the same norm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats, equalizing_weight
from percasym.balance.moving import MovingWeight, given


@dataclass(frozen=True, slots=True, kw_only=True)
class NGDiff(MovingWeight):
    """Equalise the norms of the weighted gradients of both spans at every step.

        w = |g_r| / (|g_p| + |g_r|),   hence   w |g_p| = (1 - w) |g_r|

    - g_p, g_r: gradients of the span means L_p and L_r over the whole optimizer step, before clipping.
    - The update w g_p + (1 - w) g_r bisects the angle between g_p and g_r.

    The norms are exact and of the same step that uses the weight. At a step with a norm that is zero or not finite the weight does not
    change: at |g_p| = 0 the formula would give w = 1, a zero update, and training would stop for good.

    Weight: sqrt(r) / (sqrt(p) + sqrt(r)).
    Equals: IMTL-G; `nash`.

    Source: Bu et al. 2025, "Unlearning as multi-task optimization" (arXiv:2410.22086), in the two-loss form of
    arXiv:2605.29496. For two losses it is IMTL-G (Liu et al. 2021) exactly, and Nash-MTL in direction.

    >>> from percasym.balance.base import Gramian
    >>> stats = SpanStats(step=0, num_steps=1, counts=(3, 97), gramian=Gramian(perception=9.0, reasoning=1.0, cross=0.0))
    >>> NGDiff().step(NGDiff().start(), stats).weight
    0.25
    """

    needs: ClassVar[Needs] = "gramian"

    def _target(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        return BalanceState(weight=equalizing_weight(*given(stats.gramian).norms))
