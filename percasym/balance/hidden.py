"""Equal gradient norms at the last hidden state, in place of those of all parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats, equalizing_weight
from percasym.balance.moving import WarmupWeight, given


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden(WarmupWeight):
    """Equalise the norms of both gradients at the last hidden state: a cheap approximation of `ngdiff`, with a bias.

        w = |h_r| / (|h_p| + |h_r|),   h_k = d L_k / d H

    - H: the last hidden states of all tokens of the step. The loss of a span depends on its own entries only, so the two gradients share no
      entry and never conflict; one ordinary backward pass gives both.
    - |h_k| = s_k / sqrt(N_k), with s_k the root mean square of |d nll_t / d h_t| over the N_k tokens of the span.

    The bias: entries of different tokens do not add up, unlike gradients of shared parameters. If the parameter gradients of all tokens of
    a span were parallel, |g_k| would be s_k times a constant, and w / (1 - w) would differ from that of `ngdiff` by a factor
    sqrt(N_r / N_p), against the shorter span; if they were independent, |g_k| would decrease with sqrt(N_k) too, and there is no bias.

    Cost: one backward; the norms are those of the step before. Not for RL, whose two gradients are of rewards, not of spans.

    Weight: h_r / (h_p + h_r), h_k the norm of d L_k / d H, H the last hidden states.
    Equals: `ngdiff` but for its bias.

    Source: the representation gradients of Sener and Koltun 2018 (arXiv:1810.04650) and of GradNorm's last shared layer, with the
    formula of `ngdiff`; the choice of H is ours.
    """

    needs: ClassVar[Needs] = "hidden"

    def _target(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        return BalanceState(weight=equalizing_weight(*given(stats.hidden)))
