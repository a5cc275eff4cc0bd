"""PCGrad (gradient surgery): remove the component of each gradient that conflicts with the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats
from percasym.balance.moving import WarmupWeight, given


@dataclass(frozen=True, slots=True, kw_only=True)
class PcGrad(WarmupWeight):
    """Project each gradient onto the normal plane of the other where they conflict, then add the two.

        g_p' = g_p - min(c, 0) / |g_r|^2 g_r,   g_r' = g_r - min(c, 0) / |g_p|^2 g_p,   c = <g_p, g_r>
        w  is proportional to  1 - min(c, 0) / |g_p|^2,   1 - w  to  1 - min(c, 0) / |g_r|^2

    - The weights are those of g_p and g_r in g_p' + g_r', normalised to sum 1; the length of the update is left to the learning rate
      (AdamW is nearly invariant to it).
    - The paper projects in random order of the other tasks. With two tasks there is no order.

    Without a conflict it is the plain mean, w = 0.5; with one, the smaller gradient gets more weight. Cost: that of the exact
    Gramian. With two spans it equals `upgrad`.

    Weight: (1 - c'/p) / (2 - c'/p - c'/r), c' = min(c, 0).
    Equals: 0.5 without a conflict.

    Source: Yu et al. 2020, "Gradient surgery for multi-task learning" (arXiv:2001.06782), algorithm 1.
    """

    needs: ClassVar[Needs] = "gramian"

    def _target(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        perception, reasoning, cross = given(stats.gramian).relative
        conflict = min(cross, 0.0)
        part_p, part_r = 1 - conflict / perception, 1 - conflict / reasoning
        return BalanceState(weight=part_p / (part_p + part_r))
