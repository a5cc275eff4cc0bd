"""UPGrad (unconflicting projection of gradients): project each gradient onto the cone in which no loss increases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats
from percasym.balance.moving import WarmupWeight, given


@dataclass(frozen=True, slots=True, kw_only=True)
class UpGrad(WarmupWeight):
    """Project each gradient onto the directions along which no loss increases, then average the two.

        pi(g) = argmin |d - g|^2 over d with <d, g_p> >= 0 and <d, g_r> >= 0
        update = (pi(g_p) + pi(g_r)) / 2

    - The dual of the projection is a quadratic program with one multiplier for each gradient: pi(g_p) = g_p + v_p g_p + v_r g_r, v >= 0
      minimising |g_p + v_p g_p + v_r g_r|^2. With two gradients only the condition of the other one can be violated,
      and then v_r = -<g_p, g_r> / |g_r|^2: the own condition holds by Cauchy and Schwarz, so v_p = 0.
    - The weights of g_p and g_r in the sum are normalised to sum 1.

    Cost: that of the exact Gramian. With two spans it equals `pcgrad`; they differ from three on.

    Weight: (1 - c'/p) / (2 - c'/p - c'/r), c' = min(c, 0).
    Equals: `pcgrad`.

    Source: Quinton and Rey 2024, "Jacobian descent for multi-objective optimization" (arXiv:2406.16232).
    """

    needs: ClassVar[Needs] = "gramian"

    def _target(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        perception, reasoning, cross = given(stats.gramian).relative
        of_reasoning, of_perception = max(0.0, -cross / reasoning), max(0.0, -cross / perception)  # v_r of pi(g_p), v_p of pi(g_r)
        return BalanceState(weight=(1 + of_perception) / (2 + of_perception + of_reasoning))
