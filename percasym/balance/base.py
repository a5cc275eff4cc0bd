"""What a balancing strategy is: numbers in, the weight of perception out.

The objective is `L = w L_p + (1-w) L_r`, each loss a token mean over its own span. A strategy moves w;
it never sees a model, so every strategy serves SFT and RL, on one device or many, alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

Needs = Literal["counts", "losses", "gramian"]
"""The dearest number a strategy reads: counts are known before the first backward, losses after the
last one (so they move the next step's weight), the Gramian between the span gradients and their sum."""


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
