"""Aligned-MTL: the gradients turned orthogonal and made equally long, then averaged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats
from percasym.balance.moving import Warmed, known


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedMtl(Warmed):
    """Replace both gradients by the nearest pair that is orthogonal and of one length, and take the mean of that pair.

        a  is proportional to  G^(-1/2) (1, 1),   w = a_p / (a_p + a_r),   G the Gramian

    - For a 2 x 2 matrix, by Cayley and Hamilton, G^(1/2) is proportional to G + s I with s = sqrt(det G), so its inverse needs no
      eigenvectors:

        w = (|g_r|^2 - c + s) / (|g_p|^2 + |g_r|^2 - 2 c + 2 s),   c = <g_p, g_r>,   s = |g_p| |g_r| sin(angle)

    - It is `mgda` with s added to both parts: orthogonal or opposite gradients give `ngdiff`. Where they nearly agree and differ in
      length, the paper subtracts the longer one; here w stays in [0, 1].
    - The paper's length (the least eigenvalue) is the learning rate's business.

    Cost: that of the exact Gramian.

    Weight: (r - c + s) / (p + r - 2 c + 2 s), s = sqrt(p r - c^2), clipped to [0, 1].
    Equals: `ngdiff` where c = 0 or the two are opposite.

    Source: Senushkin et al. 2023, "Independent component alignment for multi-task learning" (CVPR 2023, arXiv:2305.19000), algorithm 1.
    """

    needs: ClassVar[Needs] = "gramian"

    def _weigh(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        perception, reasoning, cross = known(stats.gramian).relative
        area = math.sqrt(max(perception * reasoning - cross**2, 0.0))
        ours, theirs = reasoning - cross + area, perception - cross + area
        if ours + theirs <= 0:  # To the last digit they are one gradient: every w gives the same update.
            return BalanceState(weight=0.5)
        return BalanceState(weight=min(max(ours / (ours + theirs), 0.0), 1.0))
