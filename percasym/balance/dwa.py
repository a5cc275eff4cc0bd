"""Dynamic weight average (DWA): more weight for the span whose loss falls more slowly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats
from percasym.balance.moving import LAST_TARGET, WarmupWeight, given, sigmoid
from percasym.config.schema import at_least


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicWeightAverage(WarmupWeight):
    """Weight each span by the ratio of its losses in the last two periods.

        w = softmax_k(r_k / temperature)_p = sigmoid((r_p - r_r) / temperature),   r_k = (L_k of this period) / (L_k of the one before)

    - L_k of a period: the mean over `period_steps` optimizer steps. The paper's period is an epoch; training here is a stream without
      epochs, and single steps would compare one batch with another.
    - temperature: at a large one, both weights are nearly equal.

    The weight moves after two periods, and then once a period. Cost: one backward. Ratios near 1 give weights near 0.5:
    with temperature 2, a span with a constant loss beside one whose loss halves in a period has w = sigmoid(0.25) = 0.56.

    Weight: sigma((q_p - q_r) / 2), q_k the ratio of L_k to that of the period before.
    Equals: 0.5 at a high temperature.

    Source: Liu, Johns and Davison 2019, "End-to-end multi-task learning with attention" (arXiv:1803.10704), equation 7; its weights sum to
    the number of tasks, these to 1.
    """

    needs: ClassVar[Needs] = "losses"

    temperature: float = 2.0
    """Temperature of the softmax, above 0 (the paper's)."""
    period_steps: int = 10
    """Optimizer steps whose mean loss is compared with that of as many before (our choice)."""

    def __post_init__(self) -> None:
        WarmupWeight.__post_init__(self)
        at_least("balance", 1, period_steps=self.period_steps)
        if not self.temperature > 0:
            raise ValueError(f"balance.temperature must be above 0, got {self.temperature}.")

    def _target(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        weight, steps = memory.get(LAST_TARGET, self.initial), memory.get("steps", 0.0) + 1
        sums = {span: memory.get(f"sum_{span}", 0.0) + loss for span, loss in zip("pr", given(stats.losses), strict=True)}
        past = {name: value for name, value in memory.items() if name.startswith("mean_")}
        if steps == self.period_steps:
            means = {span: total / steps for span, total in sums.items()}
            if past:
                ratio = {span: mean / past[f"mean_{span}"] for span, mean in means.items()}
                weight = sigmoid((ratio["p"] - ratio["r"]) / self.temperature)
            past = {f"mean_{span}": mean for span, mean in means.items()}
            steps, sums = 0.0, dict.fromkeys(sums, 0.0)
        kept = {f"sum_{span}": total for span, total in sums.items()}
        return BalanceState(weight=weight, memory={LAST_TARGET: weight, "steps": steps, **kept, **past})
