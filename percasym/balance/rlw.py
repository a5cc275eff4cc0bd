"""Random loss weighting (RLW): the baseline for every other strategy."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats
from percasym.balance.moving import WarmupWeight, sigmoid


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomLossWeighting(WarmupWeight):
    """Draw a random weight at each step.

        w = softmax(x)_p = sigmoid(x_p - x_r),   x_p, x_r ~ N(0, 1)

    - The draw depends on `seed` and the step alone, so a resumed run continues with the same weights.

    The mean weight is 0.5, and two thirds of the weights lie between 0.2 and 0.8. Cost: one backward. It reads no numbers.

    Weight: sigma(x_p - x_r), x normal, drawn anew each step.

    Source: Lin et al. 2022, "Reasonable effectiveness of random weighting" (arXiv:2111.10603), with the normal distribution of its
    experiments.
    """

    needs: ClassVar[Needs] = "counts"

    seed: int = 0
    """Seed of the draws; the yaml sets it to that of the run."""

    def _target(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        draw = random.Random(f"rlw {self.seed} {stats.step}")  # A hash of both; seed + step would repeat between seeds.
        return BalanceState(weight=sigmoid(draw.gauss() - draw.gauss()))
