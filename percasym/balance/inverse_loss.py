"""The loss of each span, in units of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats, inversely
from percasym.balance.moving import Warmed, known


@dataclass(frozen=True, slots=True, kw_only=True)
class InverseLoss(Warmed):
    """Weigh each span by the inverse of its loss, so that both weigh the same in the objective.

        w = (1 / L_p) / (1 / L_p + 1 / L_r) = L_r / (L_p + L_r),   hence   w L_p = (1 - w) L_r

    - L_p, L_r: span means of the step before, so the weight lags by one step.
    - The update is along grad log L_p + grad log L_r: the geometric mean of the losses is what goes down.

    A span that has almost no loss left gets almost the whole weight; `high` and `low` say how much of it.
    Cost: one backward. It equals `famo` whose logits do not move, and is where `uncertainty` settles when the losses stand still.

    Weight: L_r / (L_p + L_r).
    Equals: the gradient of the geometric mean.

    Source: Chennupati et al. 2019, "MultiNet++: Multi-stream feature aggregation and geometric loss strategy" (arXiv:1904.08325),
    whose gradient, the weights summed to 1, is this.
    """

    needs: ClassVar[Needs] = "losses"

    def _weigh(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        return BalanceState(weight=inversely(*known(stats.losses)))
