"""FAMO (fast adaptive multitask optimisation): both losses decrease at the same rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats
from percasym.balance.moving import WarmupWeight, given, sigmoid
from percasym.config.schema import at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class Famo(WarmupWeight):
    """Weight spans by their inverse losses, with more weight for the span whose log-loss fell less.

        w_k  is proportional to  z_k / L_k,   z = softmax(xi)
        xi  <-  Adam(xi, J^T delta + decay * xi),   delta_k = log L_k(before) - log L_k(now),   J the Jacobian of the softmax

    - xi: one logit a span, 0 at first. With two spans they are always xi and -xi, so one number is stored: z_p = sigmoid(2 xi), and its
      gradient is z_p z_r (delta_p - delta_r) + decay * xi.
    - L_k(now): span means of this step. The paper evaluates the batch of the step before once more, after its update (one more forward);
      ours uses the next batch, at no cost, and delta has the noise between two batches. Adam, which the paper's own
      experiments use, averages over it.

    Cost: one backward. With lr=0 it equals `inverse_loss`.

    Weight: in the ratio z_p / L_p to z_r / L_r, logits of z by Adam.
    Equals: `inverse_loss` with lr=0.

    Source: Liu et al. 2023, "FAMO: Fast adaptive multitask optimization" (arXiv:2306.03792), algorithms 1 and 2 with the least loss at 0.
    """

    needs: ClassVar[Needs] = "losses"

    lr: float = 0.025
    """Step of a logit, at least 0 (the paper's)."""
    decay: float = 1e-3
    """Weight decay of the logits, at least 0 (the paper's)."""

    def __post_init__(self) -> None:
        WarmupWeight.__post_init__(self)
        at_least("balance", 0, lr=self.lr, decay=self.decay)

    def _target(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        perception, reasoning = given(stats.losses)
        gap = math.log(perception) - math.log(reasoning)  # log L_p - log L_r
        moved = self._adam(memory, gap) if memory else {"logit": 0.0, "mean": 0.0, "square": 0.0, "times": 0.0}
        # w / (1 - w) = (z_p / L_p) / (z_r / L_r)
        return BalanceState(weight=sigmoid(2 * moved["logit"] - gap), memory={**moved, "gap": gap})

    def _adam(self, memory: Mapping[str, float], gap: float) -> dict[str, float]:
        """One Adam step of the logit (betas .9 and .999, as in PyTorch)."""
        logit, times = memory["logit"], memory["times"] + 1
        z = sigmoid(2 * logit)
        gradient = z * (1 - z) * (memory["gap"] - gap) + self.decay * logit  # The decrease of the gap is delta_p - delta_r.
        mean = 0.9 * memory["mean"] + 0.1 * gradient
        square = 0.999 * memory["square"] + 0.001 * gradient**2
        step = (mean / (1 - 0.9**times)) / (math.sqrt(square / (1 - 0.999**times)) + 1e-8)
        return {"logit": logit - self.lr * step, "mean": mean, "square": square, "times": times}
