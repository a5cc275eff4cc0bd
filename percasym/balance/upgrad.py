"""Unconflicting projection of gradients: each into the cone where no loss rises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats
from percasym.balance.moving import Warmed, known


@dataclass(frozen=True, slots=True, kw_only=True)
class UpGrad(Warmed):
    """Move each gradient to the nearest direction along which no loss rises, then average the two.

        pi(g) = argmin |d - g|^2 over d with <d, g_p> >= 0 and <d, g_r> >= 0
        update = (pi(g_p) + pi(g_r)) / 2

    - The dual of the projection is a quadratic program with one multiplier a gradient: pi(g_p) = g_p + v_p g_p + v_r g_r, v >= 0
      minimising |g_p + v_p g_p + v_r g_r|^2. With two gradients only the other one's condition can fail, and then
      v_r = -<g_p, g_r> / |g_r|^2: the other condition holds by Cauchy and Schwarz, so v_p = 0.
    - The weights of g_p and g_r in the sum are summed to 1.

    Cost: that of the exact Gramian. With two spans it equals `pcgrad`; they part from three on.

    Weight: (1 - c'/p) / (2 - c'/p - c'/r), c' = min(c, 0).
    Equals: `pcgrad`.

    Source: Quinton and Rey 2024, "Jacobian descent for multi-objective optimization" (arXiv:2406.16232).
    """

    needs: ClassVar[Needs] = "gramian"

    def _weigh(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        perception, reasoning, cross = known(stats.gramian).relative
        of_reasoning, of_perception = max(0.0, -cross / reasoning), max(0.0, -cross / perception)  # v_r of pi(g_p), v_p of pi(g_r)
        return BalanceState(weight=(1 + of_perception) / (2 + of_perception + of_reasoning))
