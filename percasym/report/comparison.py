"""Compare the cells of a study with the cell with balance=none: gains, paired differences, and one sentence for each finding.

The asymmetry of a cell is gain(a_r) - gain(a_p): per test sample the change of the reasoning grade minus the change of the perception
grade. All intervals are those of `percasym.statistics`, through `study.py`. `comparison_table.py` makes tables of these numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

from percasym.report.load import CONTRIBUTIONS, HEADLINE, SAMPLED_HEADLINE
from percasym.report.study import A_P, A_R, PARTS, A, Cell, CellGroup, Study, require_one_setting, require_same_rows, seed_of
from percasym.report.words import interval, points, sample_count
from percasym.types import Estimate

PREDICTED = (A, A_P)
"""Metrics that balancing is predicted to raise. There is no prediction for a_r: its finding states the cost."""


class Verdict(StrEnum):
    """What an interval says about a difference."""

    clear = "clear of 0"
    """The interval excludes 0; on the predicted side, where there is a prediction."""
    unresolved = "not resolved at this n"
    """The interval contains 0."""
    against = "against the prediction"
    """The interval excludes 0, on the other side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One metric of one cell; nan where it was not measured."""

    before: Estimate
    after: Estimate
    gain: Estimate
    difference: Estimate
    """After training, minus the same of the baseline, paired by seed and sample; nan for the baseline itself."""
    verdict: Verdict | None
    """Of the difference; None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedCell:
    """The numbers of one cell."""

    label: str
    is_baseline: bool
    num_seeds: int
    changes: Mapping[str, Change]
    """By metric: `end_to_end`, the contributions to its change, `perception`, `reasoning`, and those of sampled answers where measured."""
    asymmetry: Estimate
    asymmetry_verdict: Verdict | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The cells of one group."""

    title: str
    cells: tuple[ComparedCell, ...]
    """The baseline first, where there is one."""
    num_samples: tuple[int, ...]
    """Test samples of the evaluation after training: one number, unless the runs differ."""
    metrics: Mapping[str, str]
    """Those compared, and their titles."""

    @property
    def baseline(self) -> ComparedCell | None:
        """The cell with balance=none that the differences refer to."""
        return next((cell for cell in self.cells if cell.is_baseline), None)

    @property
    def is_measured(self) -> bool:
        """Whether any cell measured anything."""
        return any(not math.isnan(change.after.mean) for cell in self.cells for change in cell.changes.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One result of a comparison."""

    statement: str
    """The number in percentage points, its 95 % interval and n, in words."""
    estimate: Estimate
    verdict: Verdict
    leads: bool
    """Whether it is about the end result, or the asymmetry: what a reader asks first."""
    sum: str = ""
    """A difference in a as the sum of its contributions; a sentence."""

    @property
    def sentence(self) -> str:
        """The statement, its verdict and its contributions."""
        return f"{self.statement}: {self.verdict}. {self.sum}".rstrip()


def compare(group: CellGroup) -> Comparison:
    """The numbers of a group's cells.

    Raises ValueError when a file of samples cannot be read, a cell has two runs of one seed or of two settings, or runs that would be
    paired or averaged recorded different collected rows.
    """
    for cell in group.cells:
        _refuse_repeated_seeds(cell)
        for first, second in pairwise(cell.runs):
            require_one_setting(first, second)
        for first, second in (*pairwise(cell.runs), *group.pairs(cell)):
            require_same_rows(first, second)
    metrics = group.headline
    parts = {metric: [group.estimates(metric, part) for part in PARTS] for metric in metrics}
    differences = {metric: group.differences(metric) for metric in metrics}
    compared = []
    for place, cell in enumerate(group.cells):
        changes = {}
        for metric in metrics:
            before, after, gain = (part[place] for part in parts[metric])
            one = differences[metric][place]
            found = verdict(one, predicted=metric in PREDICTED and cell.strategy not in ("none", ""))
            changes[metric] = Change(before=before, after=after, gain=gain, difference=one, verdict=found)
        gap = cell.asymmetry
        compared.append(
            ComparedCell(
                label=cell.label, is_baseline=cell is group.baseline, num_seeds=len(cell.runs), changes=changes,
                asymmetry=gap, asymmetry_verdict=verdict(gap, predicted=cell.strategy == "none"),
            )
        )  # fmt: skip
    counts = {run.summary.after[A].n for cell in group.cells for run in cell.runs if run.summary and A in run.summary.after}
    return Comparison(title=group.title, cells=tuple(compared), num_samples=tuple(sorted(counts)), metrics=metrics)


def verdict(estimate: Estimate, *, predicted: bool) -> Verdict | None:
    """The verdict of an interval; `predicted`: a value above 0 was predicted. None where nothing was measured.

    >>> str(verdict(Estimate(mean=-0.1, ci95=(-0.2, -0.05), n=9), predicted=True))
    'against the prediction'
    >>> str(verdict(Estimate(mean=-0.1, ci95=(-0.2, -0.05), n=9), predicted=False))
    'clear of 0'
    """
    low, high = estimate.ci95
    if math.isnan(estimate.mean):
        return None
    if low <= 0 <= high:
        return Verdict.unresolved
    return Verdict.against if predicted and high < 0 else Verdict.clear


def compare_all(study: Study) -> list[Comparison]:
    """The comparison of each group with measurements.

    Raises ValueError when the samples of a run cannot be read, or a cell has two runs of one seed.
    """
    return [comparison for comparison in map(compare, study.groups) if comparison.is_measured]


def findings(comparison: Comparison) -> tuple[Finding, ...]:
    """The asymmetry of the baseline (without one: of every cell), then each other cell in a, a_p and a_r against the baseline.

    A number that was not measured has no finding.
    """
    baseline, n = comparison.baseline, sample_count(comparison.num_samples)
    found = [_asymmetry_finding(cell, n) for cell in comparison.cells if cell is baseline or baseline is None]
    if baseline is not None:
        others = [cell for cell in comparison.cells if cell is not baseline]
        metrics = [metric for metric in comparison.metrics if metric not in CONTRIBUTIONS]
        found += [_difference_finding(cell, metric, baseline.label, n) for cell in others for metric in metrics]
    return tuple(one for one in found if one is not None)


def _asymmetry_finding(cell: ComparedCell, n: str) -> Finding | None:
    if cell.asymmetry_verdict is None:
        return None
    way = "less" if cell.asymmetry.mean < 0 else "more"
    statement = f"{cell.label}: a_r gained {_size(cell.asymmetry)} points {way} than a_p"
    return _finding(statement, cell.asymmetry, cell.asymmetry_verdict, n, leads=True)


def _difference_finding(cell: ComparedCell, metric: str, baseline: str, n: str) -> Finding | None:
    change = cell.changes[metric]
    if change.verdict is None:
        return None
    size, name = _size(change.difference), {**HEADLINE, **SAMPLED_HEADLINE}[metric]
    n = n if metric in HEADLINE else f"{sample_count((change.difference.n,))} prompts"
    if metric == A_R and change.difference.mean < 0:
        statement = f"{cell.label}: costs {size} points of {name} against {baseline}"
    else:
        way = "lower" if change.difference.mean < 0 else "higher"
        statement = f"{cell.label}: {name} is {size} points {way} than with {baseline}"
    return _finding(statement, change.difference, change.verdict, n, leads=metric == A, sum=_sum(cell) if metric == A else "")


def _sum(cell: ComparedCell) -> str:
    """A cell's difference in a as the sum of its contributions; empty where they were not measured."""
    found = {key: cell.changes[key].difference for key in CONTRIBUTIONS if key in cell.changes}
    if not found or any(math.isnan(one.mean) for one in found.values()):
        return ""
    whole, terms = cell.changes[A].difference.mean, [f"{points(one)} {key.replace('_', ' ')}" for key, one in found.items()]
    return f"{100 * whole:+z.1f} = {', '.join(terms)}."


def _finding(statement: str, estimate: Estimate, found: Verdict, n: str, *, leads: bool, sum: str = "") -> Finding:
    whole = f"{statement} (95 % interval {interval(estimate)}, {n})"
    return Finding(statement=whole, estimate=estimate, verdict=found, leads=leads, sum=sum)


def _size(estimate: Estimate) -> str:
    return f"{abs(100 * estimate.mean):.1f}"


def _refuse_repeated_seeds(cell: Cell) -> None:
    seeds: dict[int, Path] = {}
    for run in cell.runs:
        seed = seed_of(run)
        if seed in seeds:
            raise ValueError(f"{seeds[seed]} and {run.path} are the same cell and seed. Name the runs of one study.")
        seeds[seed] = run.path
