"""Random loss weighting: the baseline that any strategy must beat."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats
from percasym.balance.moving import Warmed, sigmoid


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomLossWeighting(Warmed):
    """Draw a new weight for each step.

        w = softmax(x)_p = sigmoid(x_p - x_r),   x_p, x_r ~ N(0, 1)

    - The draw depends on `seed` and the step alone, so a resumed run goes on with the same weights.

    The mean weight is 0.5, and two thirds of the weights lie between 0.2 and 0.8. Cost: one backward. It reads nothing.

    Weight: sigma(x_p - x_r), x normal, drawn anew each step.

    Source: Lin et al. 2022, "Reasonable effectiveness of random weighting" (arXiv:2111.10603), with the normal distribution of its
    experiments.
    """

    needs: ClassVar[Needs] = "counts"

    seed: int = 0
    """Of the draws; the yaml gives it the seed of the run."""

    def _weigh(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        draw = random.Random(f"rlw {self.seed} {stats.step}")  # Hashed whole, unlike seed + step.
        return BalanceState(weight=sigmoid(draw.gauss() - draw.gauss()))
