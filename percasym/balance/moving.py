"""The base of strategies that move the weight: bounds, smoothing, warm-up, and steps without usable numbers.

A strategy computes a target weight (`_target`). This class smooths it, keeps it within bounds, and ignores the strategy during the warm-up.
At a step whose numbers are zero or not finite, neither the weight nor the memory of the strategy changes.
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

LAST_TARGET = "asked"
"""Key of the last target weight in the memory of a strategy that moves it by steps; the name is that of existing checkpoints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MovingWeight(ABC):
    """A weight that follows the target of a strategy, within bounds and smoothed over steps."""

    needs: ClassVar[Needs]

    smoothing: float = 0.0
    """Share of the last weight kept at each step, in [0, 1); 0 takes the target as it is."""
    low: float = 0.0
    """Lower bound of the weight."""
    high: float = 1.0
    """Upper bound of the weight."""

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"balance.smoothing must lie in [0, 1), got {self.smoothing}.")
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"balance.low and balance.high must satisfy 0 <= low <= high <= 1, got {self.low} and {self.high}.")

    def start(self) -> BalanceState:
        """Equal weights (within the bounds) until the first target, which is not smoothed with them."""
        return BalanceState(weight=self._bounded(0.5))

    def step(self, state: BalanceState, stats: SpanStats) -> BalanceState:
        """The target weight, smoothed and bounded; the same state where the numbers of the step are not usable."""
        target = self._target(stats, state.memory) if self._usable(stats) else None
        if target is None:
            return state
        kept = self.smoothing if state.memory else 0.0
        weight = kept * state.weight + (1 - kept) * target.weight
        return BalanceState(weight=self._bounded(weight), memory={**target.memory, "measured": 1.0})

    @abstractmethod
    def _target(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState | None:
        """The target weight at these numbers and the new memory (empty before the first step); None keeps the state as it is."""

    def _bounded(self, weight: float) -> float:
        return min(max(weight, self.low), self.high)

    def _usable(self, stats: SpanStats) -> bool:
        match self.needs:
            case "counts":
                return True
            case "spreads":
                return positive_finite(given(stats.spreads))
            case "losses":
                return positive_finite(given(stats.losses))
            case "hidden":
                return positive_finite(given(stats.hidden))
            case "gramian":
                gramian = given(stats.gramian)
                return positive_finite(gramian.norms) and math.isfinite(gramian.cross)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupWeight(MovingWeight):
    """A moving weight that is constant during a warm-up, because the first numbers of a run are the least reliable."""

    initial: float = 0.5
    """The weight until the strategy moves it (0.5: both span means count the same)."""
    warmup_frac: float = 0.0
    """Share of the steps with the weight `initial`. The strategy does not read the numbers of these steps."""

    def __post_init__(self) -> None:
        MovingWeight.__post_init__(self)  # `super()` without arguments does not work with slots.
        fraction("balance", initial=self.initial, warmup_frac=self.warmup_frac)

    def start(self) -> BalanceState:
        """The initial weight, within the bounds."""
        return BalanceState(weight=self._bounded(self.initial))

    def step(self, state: BalanceState, stats: SpanStats) -> BalanceState:
        """The same state during the warm-up, then as in `MovingWeight`."""
        return state if stats.step < round(self.warmup_frac * stats.num_steps) else MovingWeight.step(self, state, stats)


def positive_finite(pair: tuple[float, float]) -> bool:
    """Whether both numbers are positive and finite.

    If one were zero, one span would get the whole weight, and training could stop for good.
    """
    return all(0 < number < math.inf for number in pair)


def given(numbers: T | None) -> T:
    """The numbers themselves: the trainer passes all those that `needs` names."""
    assert numbers is not None, "a strategy was stepped without the numbers that its `needs` names"
    return numbers


def sigmoid(number: float) -> float:
    """1 / (1 + exp(-number)): the first of two weights that sum to 1 and whose logits differ by `number`.

    >>> sigmoid(0.0), sigmoid(1000.0), sigmoid(-1000.0)
    (0.5, 1.0, 0.0)
    """
    return (1 + math.tanh(number / 2)) / 2  # exp itself overflows.
