"""Normalised gradients: both spans pull equally hard."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats


@dataclass(frozen=True, slots=True, kw_only=True)
class NGDiff:
    """Move w so that the weighted gradients of the two spans have one norm, at every step.

        w = |g_r| / (|g_p| + |g_r|),   hence   w |g_p| = (1 - w) |g_r|

    - g_p, g_r: gradients of the span means L_p and L_r over the whole optimizer step, before clipping.
    - The update w g_p + (1 - w) g_r bisects the angle between g_p and g_r.

    The norms are those of the very step that uses the weight (nothing lags, nothing is estimated).
    A step whose norm is zero or not finite says nothing, so the weight stays: at |g_p| = 0 the formula
    would give w = 1, a zero update, and training would stop for good.

    Source: Bu et al. 2025, "Unlearning as multi-task optimization" (arXiv:2410.22086), in the two-loss form of
    arXiv:2605.29496. For two losses it is IMTL-G (Liu et al. 2021) exactly.

    >>> from percasym.balance.base import Gramian
    >>> stats = SpanStats(step=0, num_steps=1, counts=(3, 97), gramian=Gramian(perception=9.0, reasoning=1.0, cross=0.0))
    >>> NGDiff().step(NGDiff().start(), stats).weight
    0.25
    """

    needs: ClassVar[Needs] = "gramian"

    smoothing: float = 0.0
    """Share of the last weight kept at each step, in [0, 1); 0 is the paper's same-step weight."""
    low: float = 0.0
    """The weight never falls below this."""
    high: float = 1.0
    """The weight never rises above this."""

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"balance.smoothing must lie in [0, 1), got {self.smoothing}.")
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"balance.low and balance.high must satisfy 0 <= low <= high <= 1, got {self.low} and {self.high}.")

    def start(self) -> BalanceState:
        """Equal weights (within the bounds) until the first gradient is seen; then nothing of them remains."""
        return BalanceState(weight=min(max(0.5, self.low), self.high))

    def step(self, state: BalanceState, stats: SpanStats) -> BalanceState:
        """The weight of this step's norms, smoothed and bounded."""
        assert stats.gramian is not None, "a strategy that needs the Gramian was stepped without it"
        perception, reasoning = stats.gramian.norms
        if not (0 < perception < math.inf and 0 < reasoning < math.inf):
            return state
        fresh = 1 / (1 + perception / reasoning)  # Not reasoning / (perception + reasoning): that sum can overflow.
        kept = self.smoothing if state.memory else 0.0
        weight = kept * state.weight + (1 - kept) * fresh
        return BalanceState(weight=min(max(weight, self.low), self.high), memory={"measured": 1.0})
