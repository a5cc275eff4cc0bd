"""Gradient norms pulled together, tilted toward the span that learns slowly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats
from percasym.balance.moving import Warmed, known, tells
from percasym.config.schema import at_least

FLOOR = 1e-3
"""Neither weight falls below this before they are summed to 1: a span of weight 0 has no norm left to pull."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradNorm(Warmed):
    """Move the weight one signed step a time toward gradients of one norm, tilted by how fast each span learns.

        G_k = w_k |g_k|,   r_k = (L_k / L_k at first) / (their mean over spans)
        w_k  <-  w_k - lr sign(G_k - mean(G) r_k ** alpha) |g_k| / (|g_p| + |g_r|),   then both summed to 1

    - g_k, L_k: gradient and value of the span mean, of the very step that uses the weight.
    - The step is the subgradient of the paper's sum_k |G_k - mean(G) r_k ** alpha| with its target held still. Unlike there, norms are
      measured in units of their sum: `lr` then means the same for every model, and no step is longer than `lr`.
    - alpha: 0 equalises the norms whatever the losses do; then it walks to where `ngdiff` is at once.

    Cost: that of the exact Gramian, of which it reads the diagonal. A signed step knows no distance, so at rest w swings by about `lr`.

    Weight: signed steps toward equal w_k |g_k|, tilted by how fast L_k fell.
    Equals: tends to `ngdiff` with alpha=0.

    Source: Chen et al. 2018, "GradNorm: gradient normalization for adaptive loss balancing" (arXiv:1711.02257), equations 1 and 2.
    """

    needs: ClassVar[Needs] = "gramian"

    alpha: float = 1.5
    """Strength of the tilt, at least 0 (the paper's for tasks that differ much)."""
    lr: float = 0.025
    """Longest step of a weight, at least 0 (our choice: 20 steps from 0.5 to the floor)."""

    def __post_init__(self) -> None:
        Warmed.__post_init__(self)
        at_least("balance", 0, alpha=self.alpha, lr=self.lr)

    def _weigh(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState | None:
        losses = known(stats.losses)
        if not tells(losses):
            return None
        first = (memory["first_p"], memory["first_r"]) if memory else losses
        share = memory.get("asked", self.initial)
        unit = [norm / max(known(stats.gramian).norms) for norm in known(stats.gramian).norms]
        rates = [now / then for now, then in zip(losses, first, strict=True)]
        norms = [weight * size for weight, size in zip((share, 1 - share), unit, strict=True)]
        goals = [sum(norms) / 2 * (rate / (sum(rates) / 2)) ** self.alpha for rate in rates]
        pulled = [
            max(weight - self.lr * sign(norm - goal) * size / sum(unit), FLOOR)
            for weight, norm, goal, size in zip((share, 1 - share), norms, goals, unit, strict=True)
        ]
        weight = pulled[0] / sum(pulled)
        return BalanceState(weight=weight, memory={"asked": weight, "first_p": first[0], "first_r": first[1]})


def sign(number: float) -> float:
    """-1, 0 or 1."""
    return math.copysign(1.0, number) if number else 0.0
