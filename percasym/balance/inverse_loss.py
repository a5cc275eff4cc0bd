"""Inverse loss: both weighted losses are equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats, equalizing_weight
from percasym.balance.moving import WarmupWeight, given


@dataclass(frozen=True, slots=True, kw_only=True)
class InverseLoss(WarmupWeight):
    """Weight each span by the inverse of its loss, so that both contribute equally to the objective.

        w = (1 / L_p) / (1 / L_p + 1 / L_r) = L_r / (L_p + L_r),   hence   w L_p = (1 - w) L_r

    - L_p, L_r: span means of the step before, so the weight lags by one step.
    - The update is along grad log L_p + grad log L_r: the update minimises the geometric mean of the losses.

    A span with almost no loss left gets almost the whole weight; `high` and `low` bound it.
    Cost: one backward. It equals `famo` with constant logits, and `uncertainty` converges to it at constant losses.

    Weight: L_r / (L_p + L_r).
    Equals: the gradient of the geometric mean.

    Source: Chennupati et al. 2019, "MultiNet++: Multi-stream feature aggregation and geometric loss strategy" (arXiv:1904.08325),
    whose gradient, with weights normalised to sum 1, is this.
    """

    needs: ClassVar[Needs] = "losses"

    def _target(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        return BalanceState(weight=equalizing_weight(*given(stats.losses)))
