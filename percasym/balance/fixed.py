"""A constant weight of perception."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats
from percasym.config.schema import fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """Use one constant w for the whole run: `L = w L_p + (1 - w) L_r`.

    Weight: a constant.

    Source: the fixed lambda of arXiv:2605.29496.
    """

    needs: ClassVar[Needs] = "counts"

    weight: float = 0.5
    """w: 0 trains reasoning only, 1 perception only."""

    def __post_init__(self) -> None:
        fraction("balance", weight=self.weight)

    def start(self) -> BalanceState:
        """The weight itself."""
        return BalanceState(weight=self.weight)

    def step(self, state: BalanceState, stats: SpanStats) -> BalanceState:
        """The same weight."""
        return state
