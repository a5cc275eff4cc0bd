"""The interface of a balancing strategy: numbers of a step in, the weight w of perception out.

The objective is `L = w L_p + (1-w) L_r`, each loss a token mean over its own span. A strategy moves w. It reads numbers, not the model, so
every strategy works in SFT and RL, on one device or many.

A new strategy is one file in this package and one yaml in conf/balance; `MovingWeight` in moving.py provides bounds and smoothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

Needs = Literal["counts", "spreads", "losses", "hidden", "gramian"]
"""The most expensive number that a strategy reads. Counts are known before the first backward, and so are the spreads of rewards, which
RL alone has: both move the weight of the same step. Losses, and gradient norms at the last
hidden state, are known after the last one, so they move the weight of the next step. The Gramian, and the losses with it, is known before
the span gradients are combined, so it moves the weight of the same step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gramian:
    """Inner products of the two span gradients, of the whole optimizer step, over all ranks."""

    perception: float
    """|g_p|^2."""
    reasoning: float
    """|g_r|^2."""
    cross: float
    """<g_p, g_r>."""

    @property
    def norms(self) -> tuple[float, float]:
        """(|g_p|, |g_r|)."""
        return math.sqrt(self.perception), math.sqrt(self.reasoning)

    @property
    def relative(self) -> tuple[float, float, float]:
        """(|g_p|^2, |g_r|^2, <g_p, g_r>) in units of the larger square, so that formulas neither overflow nor depend on the scale.

        >>> Gramian(perception=8.0, reasoning=2.0, cross=-1.0).relative
        (1.0, 0.25, -0.125)
        """
        unit = max(self.perception, self.reasoning)
        return self.perception / unit, self.reasoning / unit, self.cross / unit

    @property
    def cosine(self) -> float:
        """Cosine between the two gradients; nan when one is zero."""
        scale = math.sqrt(self.perception * self.reasoning)
        return self.cross / scale if scale > 0 else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanStats:
    """The numbers of one optimizer step; each pair is (perception, reasoning)."""

    step: int
    num_steps: int
    counts: tuple[int, int]
    losses: tuple[float, float] | None = None
    """L_k, nan for a span without tokens; in RL, one minus the mean of each reward."""
    spreads: tuple[float, float] | None = None
    """Coefficients of variation of the two rewards over the rollouts of the step; in RL only."""
    hidden: tuple[float, float] | None = None
    """Norms of d L_k / d H, with H the last hidden states of all tokens of the step."""
    gramian: Gramian | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceState:
    """The weight of perception and the memory of a strategy; plain JSON, saved in every checkpoint."""

    weight: float
    memory: Mapping[str, float] = field(default_factory=dict)


class Balancer(Protocol):
    """A strategy: a frozen dataclass whose fields are its options."""

    needs: ClassVar[Needs]

    def start(self) -> BalanceState:
        """The state before the first step."""
        ...

    def step(self, state: BalanceState, stats: SpanStats) -> BalanceState:
        """The state after a step with these numbers."""
        ...


def refuse_strategy_of_rl(balancer: Balancer) -> None:
    """Raise ValueError in supervised training for a strategy that reads rewards, or sets what the prompts of RL show."""
    if balancer.needs == "spreads" or hasattr(balancer, "reads_text"):
        name = type(balancer).__name__.lower()
        raise ValueError(f"balance={name} is a strategy of RL, and supervised training has neither rewards nor rounds. Use paradigm=rl.")


def equalizing_weight(perception: float, reasoning: float) -> float:
    """The w at which two positive numbers, weighted, are equal: w * perception = (1 - w) * reasoning.

    >>> equalizing_weight(3.0, 1.0)
    0.25
    """
    return 1 / (1 + perception / reasoning)  # Not reasoning / (perception + reasoning): that sum can overflow.
