"""What every strategy that moves the weight shares: bounds, smoothing, a warm-up, and silence.

A strategy says what weight it asks for (`_weigh`); here that weight is smoothed, kept within its bounds and, during a
warm-up, not asked for. A step whose numbers are zero or not finite says nothing, so nothing moves: neither weight nor memory.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from percasym.balance.base import BalanceState, Needs, SpanStats
from percasym.config.schema import fraction

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving(ABC):
    """A weight within bounds, smoothed over steps."""

    needs: ClassVar[Needs]

    smoothing: float = 0.0
    """Share of the last weight kept at each step, in [0, 1); 0 is the weight as asked for."""
    low: float = 0.0
    """The weight never falls below this."""
    high: float = 1.0
    """The weight never rises above this."""

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"balance.smoothing must lie in [0, 1), got {self.smoothing}.")
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"balance.low and balance.high must satisfy 0 <= low <= high <= 1, got {self.low} and {self.high}.")

    def start(self) -> BalanceState:
        """Equal weights (within the bounds) until the strategy has asked for others; then nothing of them remains."""
        return BalanceState(weight=self._bounded(0.5))

    def step(self, state: BalanceState, stats: SpanStats) -> BalanceState:
        """The weight asked for, smoothed and bounded; the state as it was where the step says nothing."""
        asked = self._weigh(stats, state.memory) if self._says_something(stats) else None
        if asked is None:
            return state
        kept = self.smoothing if state.memory else 0.0
        weight = kept * state.weight + (1 - kept) * asked.weight
        return BalanceState(weight=self._bounded(weight), memory={**asked.memory, "measured": 1.0})

    @abstractmethod
    def _weigh(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState | None:
        """The weight that the numbers ask for and what to remember of them (memory is empty at first); None: they say nothing."""

    def _bounded(self, weight: float) -> float:
        return min(max(weight, self.low), self.high)

    def _says_something(self, stats: SpanStats) -> bool:
        match self.needs:
            case "counts":
                return True
            case "losses":
                return tells(known(stats.losses))
            case "hidden":
                return tells(known(stats.hidden))
            case "gramian":
                gramian = known(stats.gramian)
                return tells(gramian.norms) and math.isfinite(gramian.cross)


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmed(Moving):
    """A moving weight that stands still at first, because the first numbers of a run say least."""

    initial: float = 0.5
    """The weight until the strategy moves it (0.5: both span means count the same)."""
    warmup_frac: float = 0.0
    """Share of the steps at which `initial` stays; the strategy sees nothing of them, so what it calls its first losses come later."""

    def __post_init__(self) -> None:
        Moving.__post_init__(self)  # `super()` without arguments does not survive slots.
        fraction("balance", initial=self.initial, warmup_frac=self.warmup_frac)

    def start(self) -> BalanceState:
        """The initial weight, within the bounds."""
        return BalanceState(weight=self._bounded(self.initial))

    def step(self, state: BalanceState, stats: SpanStats) -> BalanceState:
        """As it was during the warm-up, then as `Moving` says."""
        return state if stats.step < round(self.warmup_frac * stats.num_steps) else Moving.step(self, state, stats)


def tells(pair: tuple[float, float]) -> bool:
    """Whether both numbers are positive and finite.

    A span whose number is zero would get the whole weight (or none of it), by which training could stop for good.
    """
    return all(0 < number < math.inf for number in pair)


def known(numbers: T | None) -> T:
    """The numbers themselves, which the trainer gives because `needs` names them."""
    assert numbers is not None, "a strategy was stepped without the numbers that its `needs` names"
    return numbers


def sigmoid(number: float) -> float:
    """1 / (1 + exp(-number)): the share of the first of two weights whose logits differ by `number`.

    >>> sigmoid(0.0), sigmoid(1000.0), sigmoid(-1000.0)
    (0.5, 1.0, 0.0)
    """
    return (1 + math.tanh(number / 2)) / 2  # exp itself overflows.
