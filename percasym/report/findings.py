"""The findings of a comparison: a sentence for each result, with its number, its 95 % interval, n and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from percasym.report.comparison import A_R, ComparedCell, Comparison, Verdict
from percasym.report.table import README_COLUMNS
from percasym.types import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One result of a comparison."""

    sentence: str
    """The number in percentage points, its 95 % interval, n and the verdict, in words."""
    estimate: Estimate
    verdict: Verdict


def findings(comparison: Comparison) -> tuple[Finding, ...]:
    """The asymmetry of the baseline (without one: of every cell), then each other cell in a, a_p and a_r against the baseline.

    What was not measured has no finding.
    """
    baseline, n = comparison.baseline, counted(comparison.num_samples)
    found = [_asymmetry_finding(cell, n) for cell in comparison.cells if cell is baseline or baseline is None]
    if baseline is not None:
        others = [cell for cell in comparison.cells if cell is not baseline]
        found += [_difference_finding(cell, metric, baseline.label, n) for cell in others for metric in README_COLUMNS]
    return tuple(one for one in found if one is not None)


def counted(num_samples: Sequence[int]) -> str:
    """The number of test samples, for a sentence.

    >>> counted([128]), counted([64, 128]), counted([])
    ('n = 128', 'n = 64 to 128', 'n not recorded')
    """
    if not num_samples:
        return "n not recorded"
    return f"n = {num_samples[0]}" if len(num_samples) == 1 else f"n = {num_samples[0]} to {num_samples[-1]}"


def _asymmetry_finding(cell: ComparedCell, n: str) -> Finding | None:
    if cell.asymmetry_verdict is None:
        return None
    way = "less" if cell.asymmetry.mean < 0 else "more"
    said = f"{cell.label}: a_r gained {_points(cell.asymmetry)} points {way} than a_p"
    return _finding(said, cell.asymmetry, cell.asymmetry_verdict, n)


def _difference_finding(cell: ComparedCell, metric: str, baseline: str, n: str) -> Finding | None:
    change = cell.changes[metric]
    if change.verdict is None:
        return None
    size, name = _points(change.difference), README_COLUMNS[metric]
    if metric == A_R and change.difference.mean < 0:
        said = f"{cell.label}: costs {size} points of {name} against {baseline}"
    else:
        way = "lower" if change.difference.mean < 0 else "higher"
        said = f"{cell.label}: {name} is {size} points {way} than with {baseline}"
    return _finding(said, change.difference, change.verdict, n)


def _finding(said: str, estimate: Estimate, found: Verdict, n: str) -> Finding:
    return Finding(sentence=f"{said} (95 % interval {interval(estimate)}, {n}): {found}.", estimate=estimate, verdict=found)


def interval(estimate: Estimate) -> str:
    """The ends of a difference in percentage points, with a decimal: whole numbers could hide on which side of 0 an end lies.

    >>> interval(Estimate(mean=0.1, ci95=(0.003, 0.2), n=9))
    '[+0.3, +20.0]'
    """
    low, high = (f"{100 * end:+z.1f}" for end in estimate.ci95)
    return f"[{low}, {high}]"


def _points(estimate: Estimate) -> str:
    return f"{abs(100 * estimate.mean):.1f}"
