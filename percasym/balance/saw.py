"""SAW: weigh each reward by its coefficient of variation (RL)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats, equalizing_weight
from percasym.balance.moving import MovingWeight, given


@dataclass(frozen=True, slots=True, kw_only=True)
class Saw(MovingWeight):
    """Give the reward that varies more beside its mean more weight: it is the one that is not learned yet.

        w = CV_p / (CV_p + CV_o),   CV_k = std(r_k) / |mean(r_k)|

    - std and mean over all rollouts of the step; std of a sample (n - 1), as in the authors' code. The weight acts on the same step.
    - The paper's weights sum to the number of rewards; the factor 2 is left out, as every w here sums to 1 with its counterpart.
    - Not shift-invariant: adding a constant to a reward changes its weight (the authors' code adds 3 to a reward in [-3, 3]). The rewards
      here lie in [0, 1], so a reward that is rarely earned has a large CV: sqrt((1 - m) / m) for verdicts of mean m.
    - A reward without variance over the whole step, or with mean 0, leaves the weight as it was (our choice: it has no advantage anyway).

    Weight: CV_p / (CV_p + CV_o) of the two rewards of the step; RL only.

    Source: He et al. 2026, "SAW: Stage-Aware Dynamic Weighting for Multi-Objective Reinforcement Learning in Large Language Models"
    (arXiv:2606.07705), of which the abstract was read, and the authors' code (Zhaolutuan/SAW, ray_trainer.py). Under GDPO
    (paradigm.mixing=normalize_then_sum) the same weights multiply advantages.

    >>> from percasym.balance.base import SpanStats
    >>> saw, stats = Saw(), SpanStats(step=0, num_steps=1, counts=(0, 8), spreads=(3.0, 1.0))
    >>> saw.step(saw.start(), stats).weight
    0.75
    """

    needs: ClassVar[Needs] = "spreads"

    def _target(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState | None:
        perception, outcome = given(stats.spreads)
        return BalanceState(weight=equalizing_weight(outcome, perception))
