"""Schedule: a weight of perception that depends on the step alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from percasym.balance.base import BalanceState, Needs, SpanStats
from percasym.config.schema import fraction, one_of

Kind = Literal["constant", "linear", "cosine", "perception_first"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Move w from `begin` to `end` by a rule that depends on the step alone.

        constant           w = begin
        linear             w = begin + (end - begin) t
        cosine             w = begin + (end - begin) (1 - cos(pi t)) / 2
        perception_first   w = begin while t < 1, then end

    - t = step / (until_frac * steps), at most 1; the steps count from 0, so the first has exactly `begin`.
    - In SFT, w weighs the perception loss; in RL, the perception reward.

    Weight: a rule of the step: constant, linear, cosine, perception_first.
    Equals: `fixed` when constant.

    Source: cosine, the curve of SCALe (arXiv:2603.18656), which moves the weight from a trace to its answer during the whole run
    (until_frac=1); perception_first, the ablation of arXiv:2605.29496 that fine-tunes on perception alone before all of the response. What
    ordinary fine-tuning would then give perception is its share of the tokens (`share/tokens`).

    >>> from percasym.balance.base import SpanStats
    >>> schedule = Schedule(kind="linear", begin=1.0, end=0.5, until_frac=0.5)
    >>> [schedule.step(schedule.start(), SpanStats(step=step, num_steps=8, counts=(3, 97))).weight for step in range(6)]
    [1.0, 0.875, 0.75, 0.625, 0.5, 0.5]
    """

    needs: ClassVar[Needs] = "counts"

    kind: Kind = "cosine"
    """constant, linear, cosine or perception_first."""
    begin: float = 1.0
    """w of the first step; 1 is perception alone."""
    end: float = 0.5
    """w after the last step of the move; unused by `constant`."""
    until_frac: float = 0.5
    """Share of the steps after which w is `end` (our choice: half the run to move, half to settle)."""

    def __post_init__(self) -> None:
        one_of("balance", Kind, kind=self.kind)
        fraction("balance", begin=self.begin, end=self.end, until_frac=self.until_frac)

    def start(self) -> BalanceState:
        """The weight of the first step."""
        return BalanceState(weight=self.begin)

    def step(self, state: BalanceState, stats: SpanStats) -> BalanceState:
        """The weight of this step."""
        steps = round(self.until_frac * stats.num_steps)
        moved = self._moved(min(1.0, stats.step / steps) if steps else 1.0)
        return BalanceState(weight=(1 - moved) * self.begin + moved * self.end)

    def _moved(self, t: float) -> float:
        """Fraction of the way from `begin` to `end` at time t in [0, 1]."""
        match self.kind:
            case "constant":
                return 0.0
            case "linear":
                return t
            case "cosine":
                return (1 - math.cos(math.pi * t)) / 2
            case "perception_first":
                return float(t >= 1)
