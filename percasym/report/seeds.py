"""How far a mean over training seeds can be trusted: Student's interval with the spread pooled over the cells of a study.

Two seeds of one cell say next to nothing about its spread (t = 12.7). Ten cells of two seeds say a good deal, if training is taken
to be about as restless in one cell as in another: that is the assumption of a one-way analysis of variance, and ours.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

from percasym.metrics import Z95
from percasym.types import Estimate

STUDENT_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Two-sided 95 % quantiles of Student's t for 1, 2, 3 ... 30 degrees of freedom (any table of it)."""


MIN_FREEDOM = 2
"""Fewest degrees of freedom with an interval over seeds: with one it would be three times as long (t = 12.7 instead of 4.3)."""


def over_seeds(cells: Sequence[Sequence[float]]) -> list[Estimate] | None:
    """Mean of each cell with its 95 % interval, from one value a seed; None below `MIN_FREEDOM`, where next to nothing tells the spread.

    With s^2 the variance within cells, pooled over all of them (d = values - cells degrees of freedom), the interval of a cell
    with n seeds is mean +- t_d s / sqrt(n). It speaks of other seeds on the same test samples.
    Source: one-way analysis of variance (Fisher 1925, "Statistical Methods for Research Workers").

    >>> [(one.mean, [round(end, 3) for end in one.ci95]) for one in over_seeds([[0.25, 0.5, 0.75], [0.5]])]
    [(0.5, [-0.121, 1.121]), (0.5, [-0.576, 1.576])]
    """
    means = [fmean(values) if values else math.nan for values in cells]
    freedom = freedom_of(len(values) for values in cells)
    if freedom < MIN_FREEDOM:
        return None
    squares = sum((value - mean) ** 2 for values, mean in zip(cells, means, strict=True) for value in values)
    spread = student(freedom) * math.sqrt(squares / freedom)
    reach = [spread / math.sqrt(len(values)) if values else math.nan for values in cells]
    return [
        Estimate(mean=mean, ci95=(mean - far, mean + far), n=len(values)) for values, mean, far in zip(cells, means, reach, strict=True)
    ]


def freedom_of(num_seeds: Iterable[int]) -> int:
    """Degrees of freedom of cells with so many seeds each.

    >>> freedom_of([3, 1, 0])
    2
    """
    return sum(number - 1 for number in num_seeds if number)


def student(freedom: int) -> float:
    """The two-sided 95 % quantile of Student's t; beyond the table by its expansion, right to three decimals.

    Source: Abramowitz and Stegun 1964, 26.7.5.

    >>> student(1), round(student(31), 3), round(student(120), 3)
    (12.706, 2.039, 1.98)
    """
    if freedom <= len(STUDENT_95):
        return STUDENT_95[freedom - 1]
    return Z95 + (Z95**3 + Z95) / (4 * freedom) + (5 * Z95**5 + 16 * Z95**3 + 3 * Z95) / (96 * freedom**2)
