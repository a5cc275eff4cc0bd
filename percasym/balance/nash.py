"""Nash-MTL: the Nash bargaining solution between the spans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats, equalizing_weight
from percasym.balance.moving import WarmupWeight, given


@dataclass(frozen=True, slots=True, kw_only=True)
class NashMtl(WarmupWeight):
    """Weight the spans by the Nash bargaining solution.

        d = argmax over a ball of log <g_p, d> + log <g_r, d>,   d = a_p g_p + a_r g_r   with   G a = 1 / a,   G the Gramian

    - G a = 1 / a reads |g_p|^2 a_p^2 + c a_p a_r = 1 and |g_r|^2 a_r^2 + c a_p a_r = 1, hence a_p |g_p| = a_r |g_r| for every c:

        w = a_p / (a_p + a_r) = |g_r| / (|g_p| + |g_r|)

    - The paper's a also sets the length of the update (sqrt(2) always); here the weights sum to 1, and the length is left to the
      learning rate.

    Cost: that of the exact Gramian. With two spans it equals `ngdiff`; they differ from three on, where G a = 1 / a has no closed form.

    Weight: sqrt(r) / (sqrt(p) + sqrt(r)).
    Equals: `ngdiff`.

    Source: Navon et al. 2022, "Multi-task learning as a bargaining game" (arXiv:2202.01017), claim 3.1.
    """

    needs: ClassVar[Needs] = "gramian"

    def _target(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        return BalanceState(weight=equalizing_weight(*given(stats.gramian).norms))
