"""Gradient norms read at the last hidden state, in place of all parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats, inversely
from percasym.balance.moving import Warmed, known


@dataclass(frozen=True, slots=True, kw_only=True)
class Hidden(Warmed):
    """Even out the norms of both losses' gradients at the last hidden state: a cheap relative of `ngdiff` with a bias of its own.

        w = |h_r| / (|h_p| + |h_r|),   h_k = d L_k / d H

    - H: the last hidden states of all tokens of the step. Those a span's loss reaches are its own, so the two gradients share no
      entry and never conflict; one ordinary backward pass brings both.
    - |h_k| = s_k / sqrt(N_k), with s_k the root mean square of |d nll_t / d h_t| over the N_k tokens of the span.

    The bias: entries of different tokens never add up, as gradients of shared parameters do. Were all tokens of a span to pull its
    parameters one way, |g_k| would be s_k times a constant, so this w differs from that of `ngdiff` by sqrt(N_r / N_p) in
    w / (1 - w), against the shorter span; where tokens pull at random |g_k| shrinks by sqrt(N_k) too, and nothing is off.

    Cost: one backward; the norms are those of the step before. Not for RL, whose two gradients are of rewards, not of spans.

    Weight: h_r / (h_p + h_r), h_k the norm of d L_k / d H, H the last hidden states.
    Equals: `ngdiff` but for its bias.

    Source: the representation gradients of Sener and Koltun 2018 (arXiv:1810.04650) and of GradNorm's last shared layer, with the
    formula of `ngdiff`; the choice of H is ours.
    """

    needs: ClassVar[Needs] = "hidden"

    def _weigh(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        return BalanceState(weight=inversely(*known(stats.hidden)))
