"""No balancing: ordinary fine-tuning with one average over all tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats


@dataclass(frozen=True, slots=True, kw_only=True)
class NoBalance:
    """Average over all tokens, so that perception has the weight of its share of the tokens.

        w = N_p / (N_p + N_r)

    with the counts of the same step, so that `w L_p + (1 - w) L_r` is the mean over all supervised tokens.

    Weight: N_p / (N_p + N_r).
    Equals: token-averaged SFT; in RL the outcome alone.

    >>> NoBalance().step(NoBalance().start(), SpanStats(step=0, num_steps=1, counts=(3, 97))).weight
    0.03
    """

    needs: ClassVar[Needs] = "counts"

    def start(self) -> BalanceState:
        """A placeholder, replaced at the counts of the first step before any loss is weighted."""
        return BalanceState(weight=0.5)

    def step(self, state: BalanceState, stats: SpanStats) -> BalanceState:
        """The share of perception among the supervised tokens; unchanged when there are none."""
        total = sum(stats.counts)
        return BalanceState(weight=stats.counts[0] / total) if total else state
