"""A strategy that holds perception at a constant share of the loss.

python train.py --config-dir examples/plugin/conf plugins=[clocks] balance=loss_share balance.target=0.3
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats


@dataclass(frozen=True, slots=True, kw_only=True)
class LossShare:
    """Choose w so that perception has the share `target` of the loss that is optimised.

        w L_p / (w L_p + (1 - w) L_r) = target,   hence   w = t L_r / (t L_r + (1 - t) L_p),   t = target

    - L_k: span means of the step before. A step whose losses are zero or not finite leaves the weight as it is.

    Weight: t L_r / (t L_r + (1 - t) L_p), t the target share.
    Equals: `inverse_loss` with target=0.5.

    Source: the example of a plug-in strategy.
    """

    needs: ClassVar[Needs] = "losses"

    target: float = 0.5
    """Share of perception in the loss, above 0 and below 1."""

    def __post_init__(self) -> None:
        if not 0 < self.target < 1:
            raise ValueError(f"balance.target must lie between 0 and 1, got {self.target}.")

    def start(self) -> BalanceState:
        """Equal weights until the first losses are known."""
        return BalanceState(weight=0.5)

    def step(self, state: BalanceState, stats: SpanStats) -> BalanceState:
        """The weight of the next step."""
        assert stats.losses is not None, "the trainer passes losses because `needs` names them"
        perception, reasoning = stats.losses
        if not all(0 < loss < math.inf for loss in stats.losses):
            return state
        return BalanceState(weight=1 / (1 + (1 - self.target) / self.target * (perception / reasoning)))
