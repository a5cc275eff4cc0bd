"""CAGrad (conflict-averse gradient descent): near the mean gradient, with the largest improvement of the worse span."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats
from percasym.balance.moving import WarmupWeight, given


@dataclass(frozen=True, slots=True, kw_only=True)
class CaGrad(WarmupWeight):
    """Take the update in a ball around the mean gradient that maximises the smaller of the two improvements.

        d = argmax over |d - g_0| <= c |g_0| of min(<g_p, d>, <g_r, d>),   g_0 = (g_p + g_r) / 2

    - Its dual is one number, v = argmin over [0, 1] of <g_v, g_0> + k |g_v| with g_v = v g_p + (1 - v) g_r and k = c |g_0|; then
      d = g_0 + k g_v / |g_v|, in which g_p has the share (|g_v| / 2 + k v) / (|g_v| + k).
    - The slope of the dual is <g_p - g_r, d>. Where it vanishes d is orthogonal to g_p - g_r, so its share is that of the shortest
      mixture, m; where it does not vanish in [0, 1] an end is best. Hence, without any search:

        w = m within [(|g_r| / 2) / (|g_r| + k), (|g_p| / 2 + k) / (|g_p| + k)],   m = (|g_r|^2 - <g_p, g_r>) / |g_p - g_r|^2

    - The length of d is left to the learning rate.

    Cost: that of the exact Gramian. It is `mgda` restricted to the neighbourhood of the plain mean, which it equals with c=0.

    Weight: that of `mgda`, held near 0.5 by a ball of radius k = c_0 |g_p + g_r| / 2.
    Equals: 0.5 with c_0 = 0.

    Source: Liu et al. 2021, "Conflict-averse gradient descent" (arXiv:2110.14048), algorithm 1; the closed form for two is ours.
    """

    needs: ClassVar[Needs] = "gramian"

    c: float = 0.5
    """Radius of the ball in units of |g_0|, in [0, 1) (the paper's; at 1 it would no longer converge to the mean's optimum)."""

    def __post_init__(self) -> None:
        WarmupWeight.__post_init__(self)
        if not 0 <= self.c < 1:
            raise ValueError(f"balance.c must lie in [0, 1), got {self.c}.")

    def _target(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        perception, reasoning, cross = given(stats.gramian).relative
        gap = perception + reasoning - 2 * cross  # |g_p - g_r|^2
        if gap <= 0:  # The gradients are numerically equal: every w gives the same update.
            return BalanceState(weight=0.5)
        radius = self.c * math.sqrt(max(perception + reasoning + 2 * cross, 0.0)) / 2  # k
        norm_p, norm_r = math.sqrt(perception), math.sqrt(reasoning)
        least, most = norm_r / 2 / (norm_r + radius), (norm_p / 2 + radius) / (norm_p + radius)
        return BalanceState(weight=min(max((reasoning - cross) / gap, least), most))
