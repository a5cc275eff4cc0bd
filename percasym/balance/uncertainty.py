"""Homoscedastic uncertainty: weights from a running variance of each span."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats, equalizing_weight
from percasym.balance.moving import WarmupWeight, given
from percasym.config.schema import at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty(WarmupWeight):
    """Estimate the variance of each span from its loss, and weight the span by the inverse.

    In the paper the model has one parameter s_k = log sigma_k^2 for each span and minimises sum_k L_k exp(-s_k) + s_k / 2. A strategy has
    no parameters in the model, but the gradient flow d s_k / dt = L_k exp(-s_k) - 1/2 is linear in the variance, with the exact solution:

        sigma_k^2  <-  2 L_k + (sigma_k^2 - 2 L_k) exp(-rate / 2)
        w = sigma_r^2 / (sigma_p^2 + sigma_r^2)

    - L_k: span means of the step before; both variances start at 1, as the learned ones usually do.
    - rate: the time that the flow runs in one step; for small values, the learning rate of a gradient step. Unlike a gradient step it
      never overshoots, however large the loss.

    So the variance is a running mean of 2 L_k over about 2 / rate steps. Cost: one backward. At constant losses it converges to
    `inverse_loss`. Because both variances start at one nat, the unit of the losses matters until the start has decayed.

    Weight: v_r / (v_p + v_r), v_k a running mean of 2 L_k that starts at 1.
    Equals: `inverse_loss` once the losses are constant.

    Source: Kendall et al. 2018, "Multi-task learning using uncertainty to weigh losses" (arXiv:1705.07115), equation 10: the form for
    cross-entropies.
    """

    needs: ClassVar[Needs] = "losses"

    rate: float = 0.1
    """Time of the flow in one step, at least 0 (our choice: a memory of about 20 steps)."""

    def __post_init__(self) -> None:
        WarmupWeight.__post_init__(self)
        at_least("balance", 0, rate=self.rate)

    def _target(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        kept = math.exp(-self.rate / 2)
        now = [2 * loss for loss in given(stats.losses)]
        before = (memory.get("variance_p", 1.0), memory.get("variance_r", 1.0))
        perception, reasoning = (new + (old - new) * kept for new, old in zip(now, before, strict=True))
        return BalanceState(weight=equalizing_weight(perception, reasoning), memory={"variance_p": perception, "variance_r": reasoning})
