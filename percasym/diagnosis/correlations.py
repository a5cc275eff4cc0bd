"""Correlation of two scores of the same rollouts: over all rollouts, within prompts, and across prompts.

A group-relative advantage compares a rollout only with the others of its prompt, so training depends on the correlation *within* groups.
The correlation *across* group means shows whether both scores agree on which prompts are hard; it has no effect on training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from percasym.diagnosis.scores import Scores, grid

Array = NDArray[np.float64]

RESAMPLES = 2000
"""Bootstrap resamples (our choice)."""
MIN_GROUPS = 8
"""Fewest prompts for an interval. Simulated coverage of the 95 % interval: 64 prompts 94 %, 32 93 %, 8 90 %, but 6 85 % and 4 71 %."""
NOISE = 1e-6
"""A standard deviation below this share of the largest score is rounding (float32 has 24 bits), and the score counts as constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """Pearson's r with its 95 % interval."""

    r: float
    """nan where either score is constant, or no rollout has both."""
    ci95: tuple[float, float]
    """Percentile bootstrap over prompts, those of one puzzle together; nan with fewer than `MIN_GROUPS`, or if most resamples have no r."""
    n: int
    """Number of pairs: of rollouts, or of group means."""

    def __str__(self) -> str:
        """The form in tables.

        >>> str(Correlation(r=0.554, ci95=(-0.001, 0.6), n=512)), str(Correlation(r=-0.12, ci95=(math.nan, math.nan), n=3))
        ('.55 [.00, .60]', '-.12')
        """
        low, high = self.ci95
        return short(self.r) if math.isnan(low) else f"{short(self.r)} [{short(low)}, {short(high)}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coupling:
    """The three correlations of two scores."""

    pooled: Correlation
    """Over all rollouts of all prompts."""
    within: Correlation
    """Over all rollouts, with the mean of each group subtracted: which rollout of a prompt is better?"""
    across: Correlation
    """Of the group means, one pair for each prompt: which prompt is easier?"""
    num_left_out: int
    """Rollouts that lack one of the two scores."""


def short(r: float) -> str:
    """A coefficient with two decimals and no zero before them; a dash for nan.

    >>> short(1.0), short(-0.123), short(-0.001), short(math.nan)
    ('1.00', '-.12', '.00', '-')
    """
    return "-" if math.isnan(r) else f"{r:z.2f}".replace("0.", ".", 1)


def coupling(x: Scores, y: Scores, *, puzzles: Sequence[str] | None = None, resamples: int = RESAMPLES, seed: int = 0) -> Coupling:
    """Correlate two scores [P][G] of the same rollouts; a rollout without one of them is left out.

    `puzzles` [P] names the puzzle of each prompt where prompts may share one (None: no two do).

    With sums over pairs, r = (S_xy - S_x S_y / n) / sqrt((S_xx - S_x^2 / n) (S_yy - S_y^2 / n)). The sums are kept by group, so
    a resample of prompts is a row of counts times a matrix. Rollouts of a prompt are not independent, nor are prompts of one puzzle, so
    the bootstrap resamples whole puzzles. With `resamples=0` the intervals are nan.

    Source: Davison and Hinkley 1997, "Bootstrap Methods and their Application", section 3.8 (hierarchical data, whole clusters).

    >>> coupling([[0, 1], [0, 1]], [[0.0, 0.2], [0.8, 1.0]]).within.r
    1.0
    """
    if [len(group) for group in x] != [len(group) for group in y]:
        raise ValueError(f"A correlation needs the same rollouts on both sides, got groups of {list(map(len, x))} and {list(map(len, y))}.")
    left, right = grid(x), grid(y)
    known = ~(np.isnan(left) | np.isnan(right))  # [P, G]
    some = known.any(1)
    left, right, known = left[some], right[some], known[some]
    sums = _sums(left, right, known)  # [P, 3, 6]
    floor = [(NOISE * np.abs(side[known]).max(initial=0.0)) ** 2 for side in (left, right)]
    r = _pearson(sums.sum(0), floor)  # [3]
    together = sums if puzzles is None else _by_puzzle(sums, [puzzles[place] for place in np.flatnonzero(some).tolist()])
    low, high = _interval(together, floor, resamples, seed)
    num_pairs, num_groups = int(known.sum()), len(known)
    pooled, within, across = (
        Correlation(r=float(r[view]), ci95=(float(low[view]), float(high[view])), n=n)
        for view, n in enumerate((num_pairs, num_pairs, num_groups))
    )
    return Coupling(pooled=pooled, within=within, across=across, num_left_out=sum(map(len, x)) - num_pairs)


def _sums(x: Array, y: Array, known: NDArray[np.bool_]) -> Array:
    """n, S_x, S_y, S_xx, S_xy, S_yy of each group, for each of the three views: [P, 3, 6]."""
    if not known.size:
        return np.zeros((0, 3, 6))
    x, y = (np.where(known, side - side[known].mean(), 0.0) for side in (x, y))  # Centred, for less cancellation in the sums.
    mean_x, mean_y = (side.sum(1, keepdims=True) / known.sum(1, keepdims=True) for side in (x, y))
    every, one = known.astype(float), np.ones((len(x), 1))
    return np.stack([_moments(x, y, every), _moments(x - mean_x, y - mean_y, every), _moments(mean_x, mean_y, one)], axis=1)


def _by_puzzle(sums: Array, puzzles: Sequence[str]) -> Array:
    """The sums of prompts [P, 3, 6] added over the prompts of each puzzle."""
    order = {puzzle: place for place, puzzle in enumerate(dict.fromkeys(puzzles))}
    added = np.zeros((len(order), *sums.shape[1:]))
    np.add.at(added, [order[puzzle] for puzzle in puzzles], sums)
    return added


def _moments(x: Array, y: Array, weight: Array) -> Array:
    return np.stack([(weight * term).sum(1) for term in (np.ones_like(x), x, y, x * x, x * y, y * y)], axis=-1)


def _pearson(sums: Array, floor: list[float]) -> Array:
    """r of sums [..., 6]; nan where a variance lies at or below its floor."""
    n, s_x, s_y, s_xx, s_xy, s_yy = np.moveaxis(sums, -1, 0)
    n = np.maximum(n, 1)
    var_x, var_y, cov = s_xx / n - (s_x / n) ** 2, s_yy / n - (s_y / n) ** 2, s_xy / n - s_x * s_y / n**2
    varies = (var_x > floor[0]) & (var_y > floor[1])
    r = cov / np.sqrt(np.where(varies, var_x * var_y, 1.0))
    return np.where(varies, np.clip(r, -1.0, 1.0), np.nan)  # Rounding may exceed 1 by 1e-16.


def _interval(sums: Array, floor: list[float], resamples: int, seed: int) -> tuple[Array, Array]:
    """Bounds of the percentile intervals, [3] each, from sums of independent groups."""
    num_groups, ends = len(sums), np.full((2, 3), np.nan)
    if resamples and num_groups >= MIN_GROUPS:
        drawn = np.random.default_rng(seed).multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=resamples)  # [B, P]
        r = _pearson(np.tensordot(drawn.astype(float), sums, axes=1), floor)  # [B, 3]
        for view, draws in enumerate(r.T):
            if (defined := draws[~np.isnan(draws)]).size > resamples / 2:
                ends[:, view] = np.quantile(defined, (0.025, 0.975))
    return ends[0], ends[1]
