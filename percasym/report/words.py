"""Numbers as every report writes them: a value in percent with its interval, a difference in points, a count with its noun."""

from __future__ import annotations

import math
from collections.abc import Sequence

from percasym.config.escaping import counted as counted
from percasym.types import Estimate

DASH = "-"
"""What was not measured."""
CONTRIBUTE = (
    "The change of a is a sum: via a_p, percepts that became right or wrong; via a_r, other answers to percepts right in both; "
    "via both, what needed the two; other, percepts wrong in both."
)
"""What the contributions are, below a table."""


def percent(estimate: Estimate | None, *, signed: bool = False) -> str:
    """An estimate in percent with its interval; a dash when nothing was measured. `signed` is for differences: `points`.

    >>> percent(Estimate(mean=0.382, ci95=(0.31, 0.452), n=200))
    '38.2 [31, 45]'
    >>> percent(Estimate(mean=0.34, ci95=(-0.021, 0.409), n=200), signed=True)
    '+34.0 [-2.1, +40.9]'
    """
    if estimate is None or math.isnan(estimate.mean):
        return DASH
    if signed:
        return points(estimate)
    low, high = (f"{100 * end:z.0f}" for end in estimate.ci95)  # z: no minus before a zero.
    return f"{100 * estimate.mean:z.1f} [{low}, {high}]"


def points(estimate: Estimate) -> str:
    """A difference in percentage points with its interval; a dash when nothing was measured.

    >>> points(Estimate(mean=0.066, ci95=(0.003, 0.121), n=9))
    '+6.6 [+0.3, +12.1]'
    """
    return DASH if math.isnan(estimate.mean) else f"{100 * estimate.mean:+z.1f} {interval(estimate)}"


def interval(estimate: Estimate) -> str:
    """The interval of a difference in percentage points, with one decimal: rounded to whole numbers, an end near 0 would lose its sign.

    >>> interval(Estimate(mean=0.1, ci95=(0.003, 0.2), n=9))
    '[+0.3, +20.0]'
    """
    low, high = (f"{100 * end:+z.1f}" for end in estimate.ci95)
    return f"[{low}, {high}]"


def sample_count(num_samples: Sequence[int]) -> str:
    """The number of test samples, for a sentence.

    >>> sample_count([128]), sample_count([64, 128]), sample_count([])
    ('n = 128', 'n = 64 to 128', 'n not recorded')
    """
    if not num_samples:
        return "n not recorded"
    return f"n = {num_samples[0]}" if len(num_samples) == 1 else f"n = {num_samples[0]} to {num_samples[-1]}"
