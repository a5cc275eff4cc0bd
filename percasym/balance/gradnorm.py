"""GradNorm: equal gradient norms, with a larger one for the span that learns more slowly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats
from percasym.balance.moving import LAST_TARGET, WarmupWeight, given, positive_finite
from percasym.config.schema import at_least

FLOOR = 1e-3
"""Least weight of a span before both are normalised: at weight 0 the norm of its gradient is 0 whatever the step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradNorm(WarmupWeight):
    """Move the weight by one signed step at a time toward equal gradient norms, scaled by how slowly each span learns.

        G_k = w_k |g_k|,   r_k = (L_k / L_k at the first step) / (mean of that over spans)
        w_k  <-  w_k - lr sign(G_k - mean(G) r_k ** alpha) |g_k| / (|g_p| + |g_r|),   then both normalised to sum 1

    - g_k, L_k: gradient and value of the span mean, of the same step that uses the weight.
    - The step is the subgradient of the paper's sum_k |G_k - mean(G) r_k ** alpha| with a constant target. Unlike there, norms are
      measured in units of their sum: `lr` then means the same for every model, and no step is longer than `lr`.
    - alpha: 0 equalises the norms whatever the losses are; the weight then moves step by step to that of `ngdiff`.

    Cost: that of the exact Gramian, of which it reads the diagonal. A step has a fixed size, so a converged w oscillates by about `lr`.

    Weight: signed steps toward equal w_k |g_k|, tilted by how fast L_k fell.
    Equals: tends to `ngdiff` with alpha=0.

    Source: Chen et al. 2018, "GradNorm: gradient normalization for adaptive loss balancing" (arXiv:1711.02257), equations 1 and 2.
    """

    needs: ClassVar[Needs] = "gramian"

    alpha: float = 1.5
    """Exponent of the learning rates, at least 0 (the paper's for tasks that differ much)."""
    lr: float = 0.025
    """Longest step of a weight, at least 0 (our choice: 20 steps from 0.5 to the floor)."""

    def __post_init__(self) -> None:
        WarmupWeight.__post_init__(self)
        at_least("balance", 0, alpha=self.alpha, lr=self.lr)

    def _target(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState | None:
        losses = given(stats.losses)
        if not positive_finite(losses):
            return None
        first = (memory["first_p"], memory["first_r"]) if memory else losses
        share = memory.get(LAST_TARGET, self.initial)
        unit = [norm / max(given(stats.gramian).norms) for norm in given(stats.gramian).norms]
        rates = [now / then for now, then in zip(losses, first, strict=True)]
        norms = [weight * size for weight, size in zip((share, 1 - share), unit, strict=True)]
        targets = [sum(norms) / 2 * (rate / (sum(rates) / 2)) ** self.alpha for rate in rates]
        moved = [
            max(weight - self.lr * sign(norm - target) * size / sum(unit), FLOOR)
            for weight, norm, target, size in zip((share, 1 - share), norms, targets, unit, strict=True)
        ]
        weight = moved[0] / sum(moved)
        return BalanceState(weight=weight, memory={LAST_TARGET: weight, "first_p": first[0], "first_r": first[1]})


def sign(number: float) -> float:
    """-1, 0 or 1."""
    return math.copysign(1.0, number) if number else 0.0
