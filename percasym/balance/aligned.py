"""Aligned-MTL: replace the gradients by orthogonal ones of equal length, then average."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from percasym.balance.base import BalanceState, Needs, SpanStats
from percasym.balance.moving import WarmupWeight, given


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignedMtl(WarmupWeight):
    """Replace both gradients by the nearest pair that is orthogonal and of one length, and take the mean of that pair.

        a  is proportional to  G^(-1/2) (1, 1),   w = a_p / (a_p + a_r),   G the Gramian

    - For a 2 x 2 matrix, by Cayley and Hamilton, G^(1/2) is proportional to G + s I with s = sqrt(det G), so its inverse needs no
      eigenvectors:

        w = (|g_r|^2 - c + s) / (|g_p|^2 + |g_r|^2 - 2 c + 2 s),   c = <g_p, g_r>,   s = |g_p| |g_r| sin(angle)

    - It is `mgda` with s added to both parts: orthogonal or opposite gradients give `ngdiff`. Where they nearly agree and differ in
      length, the paper subtracts the longer one; here w stays in [0, 1].
    - The paper scales the update by the least eigenvalue; here its length is left to the learning rate.

    Cost: that of the exact Gramian.

    Weight: (r - c + s) / (p + r - 2 c + 2 s), s = sqrt(p r - c^2), clipped to [0, 1].
    Equals: `ngdiff` where c = 0 or the two are opposite.

    Source: Senushkin et al. 2023, "Independent component alignment for multi-task learning" (CVPR 2023, arXiv:2305.19000), algorithm 1.
    """

    needs: ClassVar[Needs] = "gramian"

    def _target(self, stats: SpanStats, memory: Mapping[str, float]) -> BalanceState:
        perception, reasoning, cross = given(stats.gramian).relative
        area = math.sqrt(max(perception * reasoning - cross**2, 0.0))
        part_p, part_r = reasoning - cross + area, perception - cross + area
        if part_p + part_r <= 0:  # The gradients are numerically equal: every w gives the same update.
            return BalanceState(weight=0.5)
        return BalanceState(weight=min(max(part_p / (part_p + part_r), 0.0), 1.0))
