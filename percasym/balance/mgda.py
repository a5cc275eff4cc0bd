"""MGDA (multiple-gradient descent algorithm): the shortest convex combination of both gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats
from percasym.balance.moving import WarmupWeight, given


@dataclass(frozen=True, slots=True, kw_only=True)
class Mgda(WarmupWeight):
    """Choose the w whose update is shortest; along it neither loss increases.

        w = argmin over [0, 1] of |w g_p + (1 - w) g_r|^2 = clip((|g_r|^2 - c) / (|g_p|^2 + |g_r|^2 - 2 c)),   c = <g_p, g_r>

    - The update is orthogonal to g_p - g_r: both losses decrease equally fast. Where c exceeds the smaller square, the
      minimum is at an end: the span with the smaller gradient gets all the weight.
    - It favours the smaller gradient: |g_r|^2 / (|g_p|^2 + |g_r|^2) where they are orthogonal, which is
      `ngdiff` with squares. Gradients of one norm get w = 0.5.

    Cost: that of the exact Gramian. Where both gradients are equal every w gives the same update, and 0.5 is taken.

    Weight: (r - c) / (p + r - 2 c), clipped to [0, 1].
    Equals: `ngdiff` of squares where c = 0.

    Source: Desideri 2012, "Multiple-gradient descent algorithm"; for deep networks Sener and Koltun 2018 (arXiv:1810.04650), whose closed
    form for two tasks (algorithm 1) this is.
    """

    needs: ClassVar[Needs] = "gramian"

    def _target(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        perception, reasoning, cross = given(stats.gramian).relative
        if perception == reasoning:
            return BalanceState(weight=0.5)
        if cross >= min(perception, reasoning):
            return BalanceState(weight=float(perception < reasoning))
        return BalanceState(weight=(reasoning - cross) / ((reasoning - cross) + (perception - cross)))
