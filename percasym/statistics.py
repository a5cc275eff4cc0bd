"""Estimates with 95 % intervals: shares, means, paired changes. Every interval of an accuracy, wherever it is shown, is made here.

A value is the grade of one sample under one training seed, or the change of that grade. Samples of one puzzle are not independent, and all
seeds answer the same puzzles, so the variance of a mean has two parts: one over puzzles, and with several seeds one over seeds. From it
follows the number of independent values that would have the same variance (effective sample size), which the closed forms for
independent values then use in place of n. The method, its sources and its measured coverage: docs/statistics.md.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import NamedTuple

from percasym.types import Estimate

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

PRIOR = 0.5
"""Pseudo-values with the variance of verdicts among graded values. Our choice: with 0 eight values cover 92.9 %, with 1 four cover 98 %."""
MANY = 1e5
"""Degrees of freedom from which on the quantile is the normal one to five digits."""
NEWTON_STEPS, INTERVALS = 8, 64
"""Enough for ten digits of the quantile at every number of degrees of freedom."""

Labels = Sequence[Hashable] | None
"""The puzzle or the seed of each value. None: every value is a puzzle of its own; all values are of one seed."""


class Value(NamedTuple):
    """One measured value."""

    number: float
    puzzle: Hashable
    seed: Hashable


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The mean of some values, and what its variance says."""

    mean: float
    """Mean over seeds of the mean of each seed; with one seed, or equally many values in each, that of all values."""
    square: float
    """The same mean of the squared values."""
    size: float
    """Effective sample size: independent values that would give the mean the same variance, at most the number of values."""
    n: int
    """Test samples: the values of one seed, the largest number where seeds differ."""


def proportion(values: Sequence[bool | float | None], puzzles: Labels = None, seeds: Labels = None) -> Estimate:
    """Mean of values in [0, 1] with Wilson's interval at the effective sample size; None (not measurable) is not counted.

    Unlike the normal interval it stays in [0, 1] and keeps a width at 0 or n successes. Graded values vary less than verdicts of the same
    mean, which enlarges their effective sample size; that of a few equal values is bounded by `PRIOR`.
    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953; with an effective sample size and Student's quantile, Korn and Graubard 1998,
    Survey Methodology 24.

    >>> [round(x, 3) for x in proportion([True] * 8 + [False] * 2).ci95]
    [0.49, 0.943]
    >>> [round(x, 3) for x in proportion([False] * 4).ci95]
    [0.0, 0.49]
    """
    measured = _measured(values, puzzles, seeds)
    if not measured:
        return nothing()
    found = spread(measured)
    share, z2 = found.mean, Z95 * Z95
    verdicts = share * (1 - share)
    variance = (found.size * (found.square - share * share) + PRIOR * verdicts) / (found.size + PRIOR)
    n = found.size * (verdicts / variance if variance > 0 else 1.0)
    centre = (n * share + z2 / 2) / (n + z2)
    half_width = Z95 * math.sqrt(n * share * (1 - share) + z2 / 4) / (n + z2)
    low = 0.0 if share == 0 else centre - half_width  # Exact at the ends, where rounding leaves 1e-17.
    high = 1.0 if share == 1 else centre + half_width
    return Estimate(mean=share, ci95=(low, high), n=found.n)


def gain(before: Sequence[float | None], after: Sequence[float | None], puzzles: Labels = None, seeds: Labels = None) -> Estimate:
    """Mean of the differences `after - before` over the same samples, with the interval of paired data.

    Pairing removes the variance between easy and hard samples. A pair with None on either side is not counted.

    >>> gain([False, False, True, False], [True, False, True, True]).mean
    0.5
    """
    if len(before) != len(after):
        raise ValueError(f"A paired gain needs the same samples before and after, got {len(before)} and {len(after)}.")
    pairs = zip(before, after, strict=True)
    return change([None if old is None or new is None else float(new) - float(old) for old, new in pairs], puzzles, seeds, reach=1.0)


def change(values: Sequence[float | None], puzzles: Labels = None, seeds: Labels = None, *, reach: float) -> Estimate:
    """Mean of signed changes within [-reach, reach], with the adjusted Wald interval at the effective sample size.

    Two pseudo-values of mean 0 and mean square `reach` / 2 are added, so the interval keeps a width when nothing changed. With reach 1 they
    are half a pair in each of the four cells of before x after; the asymmetry, a difference of two such changes, has reach 2.
    Source: Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions", doi:10.1002/sim.1781.

    >>> [round(x, 3) for x in change([0.0] * 8, reach=1.0).ci95]
    [-0.196, 0.196]
    """
    measured = _measured(values, puzzles, seeds)
    if not measured:
        return nothing()
    found = spread(measured)
    n = found.size + 2
    centre, squares = found.size * found.mean / n, found.size * found.square + reach
    half_width = Z95 * math.sqrt(squares - n * centre * centre) / n
    return Estimate(mean=found.mean, ci95=(max(-reach, centre - half_width), min(reach, centre + half_width)), n=found.n)


def spread(measured: Sequence[Value]) -> Spread:
    """Mean and effective sample size of values with puzzles and seeds.

    With S seeds, G puzzles and z_sg the part of puzzle g and seed s in (mean of seed s - its expectation) / S:

    - B = G / (G - 1) sum_g (sum_s z_sg)^2 is the variance over puzzles, clustered;
    - A = variance of the seeds' means / S is that over seeds, and E = S / (S - 1) G / (G - 1) sum_sg (z_sg - mean_s z_sg)^2 the part of A
      that puzzles and seeds cause together and B holds already;
    - the variance of the mean is B + max(0, A - E), with (A + B)^2 / (A^2 / (S - 1) + B^2 / (G - 1)) degrees of freedom.

    The effective sample size is n over the design effect (that variance over the variance of n independent values, at least 1), times
    (t_(n-1) / t_f)^2 for the f degrees of freedom. If all values are equal nothing can be estimated, and each puzzle counts as one.
    Sources: Kish 1965, "Survey Sampling", chapter 5; Cameron, Gelbach and Miller 2011, "Robust inference with multiway clustering",
    doi:10.1198/jbes.2010.07136; Satterthwaite 1946, doi:10.2307/3002019.
    """
    seeds: dict[Hashable, list[Value]] = {}
    for value in measured:
        seeds.setdefault(value.seed, []).append(value)
    means = {seed: fmean(value.number for value in values) for seed, values in seeds.items()}
    mean, square = fmean(means.values()), fmean(fmean(value.number**2 for value in values) for values in seeds.values())
    parts: dict[Hashable, dict[Hashable, float]] = {}
    for value in measured:
        own = parts.setdefault(value.puzzle, dict.fromkeys(seeds, 0.0))
        own[value.seed] += (value.number - means[value.seed]) / (len(seeds) * len(seeds[value.seed]))
    size = _effective_size(parts, list(means.values()), square - mean * mean, len(measured))
    return Spread(mean=mean, square=square, size=size, n=max(map(len, seeds.values())))


def _effective_size(parts: dict[Hashable, dict[Hashable, float]], means: Sequence[float], variance: float, n: int) -> float:
    """Effective sample size of `n` values with this variance; `parts` is z_sg by puzzle, then by seed."""
    num_puzzles, num_seeds = len(parts), len(means)
    if num_puzzles == 1 or variance < 1e-12:
        return num_puzzles
    if num_seeds == 1 and num_puzzles == n:  # One value of each puzzle: independent values.
        return n
    unbiased = num_puzzles / (num_puzzles - 1)
    over_puzzles = unbiased * sum(sum(own.values()) ** 2 for own in parts.values())
    over_seeds = both = 0.0
    freedom = num_puzzles - 1.0
    if num_seeds > 1:
        centre = fmean(means)
        over_seeds = sum((mean - centre) ** 2 for mean in means) / (num_seeds - 1) / num_seeds
        left = sum((part - fmean(own.values())) ** 2 for own in parts.values() for part in own.values())
        both = num_seeds / (num_seeds - 1) * unbiased * left
        if over_puzzles + over_seeds > 0:
            terms = over_seeds**2 / (num_seeds - 1) + over_puzzles**2 / (num_puzzles - 1)
            freedom = (over_seeds + over_puzzles) ** 2 / terms
    effect = (over_puzzles + max(0.0, over_seeds - both)) / (variance / (n - 1))
    return n / max(1.0, effect) * (student(n - 1) / student(freedom)) ** 2


@lru_cache(maxsize=4096)
def student(freedom: float) -> float:
    """The two-sided 95 % quantile of Student's t for any real number of degrees of freedom from 1 on.

    With t = sqrt(f) tan(angle), P(0 < T < t) = c times the integral of cos(x)^(f - 1) from 0 to the angle; Newton's method on the angle
    rises to the solution from the normal quantile, which lies below it. Compared with scipy in the tests.

    >>> [round(student(freedom), 4) for freedom in (1, 1.5, 2, 30)]
    [12.7062, 6.0167, 4.3027, 2.0423]
    """
    if freedom > MANY:
        return Z95
    c = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    angle = math.atan(Z95 / math.sqrt(freedom))
    for _ in range(NEWTON_STEPS):
        width = angle / INTERVALS
        heights = [math.cos(place * width) ** (freedom - 1) for place in range(INTERVALS + 1)]
        integral = width / 3 * (heights[0] + heights[-1] + 4 * sum(heights[1:-1:2]) + 2 * sum(heights[2:-1:2]))  # Simpson's rule.
        angle += (0.475 - c * integral) / (c * heights[-1])
    return math.sqrt(freedom) * math.tan(angle)


def nothing() -> Estimate:
    """The estimate of no values."""
    return Estimate(mean=math.nan, ci95=(math.nan, math.nan), n=0)


def _measured(values: Sequence[float | None], puzzles: Labels, seeds: Labels) -> list[Value]:
    """Each value that is not None, with its puzzle and seed."""
    places = range(len(values)) if puzzles is None else puzzles
    runs = [0] * len(values) if seeds is None else seeds
    return [Value(float(value), place, run) for value, place, run in zip(values, places, runs, strict=True) if value is not None]
