"""What a balancing strategy is: numbers in, the weight of perception out.

The objective is `L = w L_p + (1-w) L_r`, each loss a token mean over its own span. A strategy moves w;
it never sees a model, so every strategy serves SFT and RL, on one device or many, alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

Needs = Literal["counts", "losses", "hidden", "gramian"]
"""The dearest number a strategy reads: counts are known before the first backward, losses and the norms at the last hidden
state after the last one (so they move the next step's weight), the Gramian between the span gradients and their sum, the
losses with it."""


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
        """(|g_p|^2, |g_r|^2, <g_p, g_r>) in units of the larger square: no scale of the gradients overflows a formula or changes it.

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
    """What is known of one optimizer step; each pair is (perception, reasoning)."""

    step: int
    num_steps: int
    counts: tuple[int, int]
    losses: tuple[float, float] | None = None
    """L_k, nan for a span without tokens; in RL, what each reward has left to earn."""
    hidden: tuple[float, float] | None = None
    """Norm of d L_k / d H, with H the last hidden states of all tokens of the step."""
    gramian: Gramian | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceState:
    """The weight of perception and whatever a strategy remembers; plain JSON, kept in every checkpoint."""

    weight: float
    memory: Mapping[str, float] = field(default_factory=dict)


class Balancer(Protocol):
    """A strategy: a frozen dataclass whose fields are its options."""

    needs: ClassVar[Needs]

    def start(self) -> BalanceState:
        """The state before the first step."""
        ...

    def step(self, state: BalanceState, stats: SpanStats) -> BalanceState:
        """The state after seeing `stats`."""
        ...


def inversely(perception: float, reasoning: float) -> float:
    """The w that evens out two positive numbers: w * perception = (1 - w) * reasoning.

    >>> inversely(3.0, 1.0)
    0.25
    """
    return 1 / (1 + perception / reasoning)  # Not reasoning / (perception + reasoning): that sum can overflow.
