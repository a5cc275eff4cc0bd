"""Grade rollouts, and estimate accuracies and gains with 95 % intervals.

End-to-end accuracy a: is the answer correct? Perception a_p: is the stated percept p*? Reasoning a_r: is the answer correct when p* is
given? Grading is strict: a response that is not exactly one well-formed perception and one answer counts as incorrect, with its faults.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING

from percasym.types import Estimate, Fault, Grade, Rollout, SampleKey

if TYPE_CHECKING:
    from percasym.tasks.base import Task

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

Puzzles = Sequence[Hashable] | None
"""The puzzle (cluster) of each value, because small tasks repeat puzzles: five nodes give 60 test graphs. None: all are distinct."""

RESAMPLES = 2000
"""Bootstrap resamples: the ends of an interval vary by less than a tenth of its width between seeds."""


def grade(task: Task, truth: str, rollout: Rollout) -> Grade:
    """Grade a rollout against its p* `truth` in canonical form."""
    response, faults = rollout.response, rollout.response.faults
    stated = None if response.percept is None else task.parse(response.percept)
    if response.percept is not None and stated is None:
        faults = (*faults, Fault.percept_not_readable)
    outcome = not faults and response.answer is not None and task.right(rollout.prompt.key, truth, response.answer)
    return Grade(
        perception=stated == truth,
        perception_graded=0.0 if stated is None else task.agreement(truth, stated),
        outcome=outcome,
        faithful=outcome if stated == truth else _faithful(task, rollout.prompt.key, stated, None if faults else response.answer),
        faults=faults,
    )


def _faithful(task: Task, key: SampleKey, stated: str | None, answer: str | None) -> bool | None:
    """Whether `answer` is right for a percept that is not p*; None if no percept could be parsed, or the task does not support `verify`."""
    if stated is None or "verify" in task.lacks:
        return None
    return answer is not None and task.right(key, stated, answer)


def proportion(values: Sequence[bool | None], puzzles: Puzzles = None) -> Estimate:
    """Share of true values with its Wilson interval; None (not measurable) is not counted in n.

    Unlike the normal interval it stays in [0, 1] and keeps a width at 0 or n successes. Clustered values enter through the effective
    sample size (`_effective_n`).
    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953; with an effective sample size, Korn and Graubard 1998, Survey Methodology 24.

    >>> [round(x, 3) for x in proportion([True] * 8 + [False] * 2).ci95]
    [0.49, 0.943]
    """
    measured = _measured(values, puzzles)
    if not measured:
        return _empty()
    share, n, z2 = fmean(value for value, _ in measured), _effective_n(measured), Z95 * Z95
    centre = (n * share + z2 / 2) / (n + z2)
    half_width = Z95 * math.sqrt(n * share * (1 - share) + z2 / 4) / (n + z2)
    low = 0.0 if share == 0 else centre - half_width  # Exact at the ends, where rounding leaves 1e-17.
    high = 1.0 if share == 1 else centre + half_width
    return Estimate(mean=share, ci95=(low, high), n=len(measured))


def average(values: Sequence[float | None], puzzles: Puzzles = None) -> Estimate:
    """Mean of graded values with its percentile bootstrap interval, which resamples whole puzzles; the seed is fixed.

    Equal values have an interval of width zero, because the bootstrap has no variation to resample.
    """
    measured = _measured(values, puzzles)
    return _bootstrap(measured) if measured else _empty()


def gain(before: Sequence[float | None], after: Sequence[float | None], puzzles: Puzzles = None) -> Estimate:
    """Mean of the differences `after - before` over the same samples, with the interval of paired data.

    Pairing removes the variance between easy and hard samples. For binary values the interval is Wald's after half a pair is added to
    each of the four cells of before x after, so that it keeps a width when no sample changed; for graded values it is the bootstrap of
    the differences. A pair with None on either side is not counted in n. Clustered pairs enter through the effective sample size.
    Source: Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions", doi:10.1002/sim.1781.

    >>> gain([False, False, True, False], [True, False, True, True]).mean
    0.5
    """
    if len(before) != len(after):
        raise ValueError(f"A paired gain needs the same samples before and after, got {len(before)} and {len(after)}.")
    pairs = list(zip(before, after, strict=True))
    measured = _measured([None if old is None or new is None else float(new) - float(old) for old, new in pairs], puzzles)
    if not measured:
        return _empty()
    binary = all(isinstance(value, bool) for pair in pairs if None not in pair for value in pair)
    return _agresti_min(measured) if binary else _bootstrap(measured)


def _measured(values: Sequence[float | None], puzzles: Puzzles) -> list[tuple[float, Hashable]]:
    """Each value that is not None with its puzzle; without `puzzles`, each value has its own."""
    clusters: Sequence[Hashable] = range(len(values)) if puzzles is None else puzzles
    return [(float(value), puzzle) for value, puzzle in zip(values, clusters, strict=True) if value is not None]


def _effective_n(measured: Sequence[tuple[float, Hashable]]) -> float:
    """Effective sample size: the number of values over the design effect, at most the number of values.

    The design effect is the variance of the mean estimated from clusters over that from values. If all values are equal the correlation
    within puzzles cannot be estimated, so each puzzle counts as one.
    Source: Kish 1965, "Survey Sampling", chapter 5.
    """
    n, mean = len(measured), fmean(value for value, _ in measured)
    sums: dict[Hashable, float] = {}
    for value, puzzle in measured:
        sums[puzzle] = sums.get(puzzle, 0.0) + value - mean
    groups, spread = len(sums), sum((value - mean) ** 2 for value, _ in measured)
    if groups == n or groups == 1 or spread == 0:
        return groups
    effect = (groups / (groups - 1) * sum(total**2 for total in sums.values())) / (n / (n - 1) * spread)
    return n / max(1.0, effect)


def _agresti_min(measured: Sequence[tuple[float, Hashable]]) -> Estimate:
    mean, size = fmean(value for value, _ in measured), _effective_n(measured)
    n = size + 2
    centre = size * mean / n
    discordant = size * fmean(abs(value) for value, _ in measured) + 1
    half_width = Z95 * math.sqrt(discordant - n * centre * centre) / n
    return Estimate(mean=mean, ci95=(max(-1.0, centre - half_width), min(1.0, centre + half_width)), n=len(measured))


def _bootstrap(measured: Sequence[tuple[float, Hashable]]) -> Estimate:
    groups: dict[Hashable, list[float]] = {}
    for value, puzzle in measured:
        groups.setdefault(puzzle, []).append(value)
    parts = [(sum(values), len(values)) for values in groups.values()]
    rng = Random(0)  # A fixed seed: an interval is a function of its values.
    means = []
    for _ in range(RESAMPLES):
        totals, numbers = zip(*rng.choices(parts, k=len(parts)), strict=True)
        means.append(sum(totals) / sum(numbers))
    means.sort()
    tail = round(0.025 * RESAMPLES)
    return Estimate(mean=fmean(value for value, _ in measured), ci95=(means[tail - 1], means[-tail]), n=len(measured))


def _empty() -> Estimate:
    return Estimate(mean=math.nan, ci95=(math.nan, math.nan), n=0)
