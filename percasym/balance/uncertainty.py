"""Homoscedastic uncertainty: a learned variance for each span."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats, inversely
from percasym.balance.moving import Warmed, known
from percasym.config.schema import at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty(Warmed):
    """Learn how noisy each span is, and weigh it by the inverse of its variance.

    The model would carry one number s_k = log sigma_k^2 a span and minimise sum_k L_k exp(-s_k) + s_k / 2. A balancer has no
    parameters in the model; but the gradient flow of s_k, d s_k / dt = L_k exp(-s_k) - 1/2, is linear in the variance and solved exactly:

        sigma_k^2  <-  2 L_k + (sigma_k^2 - 2 L_k) exp(-rate / 2)
        w = sigma_r^2 / (sigma_p^2 + sigma_r^2)

    - L_k: span means of the step before; both variances start at 1, as the learned ones usually do.
    - rate: for how long the flow of one step runs, which is a gradient step's learning rate where that is small. Unlike a step it
      never overshoots, however large the loss.

    So the variance is a running mean of 2 L_k over about 2 / rate steps. Cost: one backward. Where the losses stand still it settles at
    `inverse_loss`. Because both variances start at one nat, the unit of the losses matters until the start is forgotten.

    Weight: v_r / (v_p + v_r), v_k a running mean of 2 L_k that starts at 1.
    Equals: `inverse_loss` once the losses are constant.

    Source: Kendall et al. 2018, "Multi-task learning using uncertainty to weigh losses" (arXiv:1705.07115), equation 10: the form for
    cross-entropies.
    """

    needs: ClassVar[Needs] = "losses"

    rate: float = 0.1
    """Time of the flow in one step, at least 0 (our choice: forgets over 20 steps)."""

    def __post_init__(self) -> None:
        Warmed.__post_init__(self)
        at_least("balance", 0, rate=self.rate)

    def _weigh(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        kept = math.exp(-self.rate / 2)
        now = [2 * loss for loss in known(stats.losses)]
        before = (memory.get("variance_p", 1.0), memory.get("variance_r", 1.0))
        perception, reasoning = (new + (old - new) * kept for new, old in zip(now, before, strict=True))
        return BalanceState(weight=inversely(perception, reasoning), memory={"variance_p": perception, "variance_r": reasoning})
