"""What every cell of a study gained in a, a_p and a_r, how it differs from the cell with balance=none, and which predictions hold.

The asymmetry of a cell is gain(a_r) - gain(a_p): per test sample the change of the reasoning grade minus the change of the perception
grade, averaged with a bootstrap that draws whole puzzles. Like every paired difference here it is computed for each seed, and mean and
interval are averaged over the seeds. Numbers only: `findings.py` makes sentences of them, `comparison_table.py` a table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from percasym import metrics
from percasym.report.study import Cell, CellGroup, average, seed_of
from percasym.report.table import README_COLUMNS
from percasym.report.verdicts import Graded, SampleName
from percasym.types import Estimate

A, A_P, A_R = README_COLUMNS
"""Keys of the three metrics, in the order in which reports show them."""
PREDICTED = (A, A_P)
"""Metrics that balancing is predicted to raise. Of a_r nothing is predicted: its finding states the cost."""


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
    """One cell beside the baseline of its group."""

    label: str
    is_baseline: bool
    num_seeds: int
    changes: Mapping[str, Change]
    """By metric: `end_to_end`, `perception`, `reasoning`."""
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
    is_over_seeds: bool
    """Whether the intervals of `after` and `gain` are over seeds; otherwise, like all others, over test samples."""

    @property
    def baseline(self) -> ComparedCell | None:
        """The cell with balance=none that the differences refer to."""
        return next((cell for cell in self.cells if cell.is_baseline), None)

    @property
    def is_measured(self) -> bool:
        """Whether any cell measured anything."""
        return any(not math.isnan(change.after.mean) for cell in self.cells for change in cell.changes.values())


def compare(group: CellGroup) -> Comparison:
    """The numbers of a group's cells. Raises ValueError when a file of samples cannot be read, or a cell has two runs of one seed."""
    for cell in group.cells:
        _refuse_twins(cell)
    parts = {metric: [group.estimates(metric, part) for part in ("before", "after", "gain")] for metric in README_COLUMNS}
    differences = {metric: group.differences(metric) for metric in README_COLUMNS}
    compared = []
    for place, cell in enumerate(group.cells):
        is_baseline = cell is group.baseline
        changes = {}
        for metric in README_COLUMNS:
            before, after, gain = (part[place] for part in parts[metric])
            one = differences[metric][place]
            found = verdict(one, predicted=metric in PREDICTED and cell.strategy not in ("none", ""))
            changes[metric] = Change(before=before, after=after, gain=gain, difference=one, verdict=found)
        gap = asymmetry(cell)
        compared.append(
            ComparedCell(
                label=cell.label, is_baseline=is_baseline, num_seeds=len(cell.runs), changes=changes,
                asymmetry=gap, asymmetry_verdict=verdict(gap, predicted=cell.strategy == "none"),
            )
        )  # fmt: skip
    counts = {run.summary.after[A].n for cell in group.cells for run in cell.runs if run.summary and A in run.summary.after}
    return Comparison(title=group.title, cells=tuple(compared), num_samples=tuple(sorted(counts)), is_over_seeds=group.has_spread)


def asymmetry(cell: Cell) -> Estimate:
    """gain(a_r) - gain(a_p) of a cell, averaged over its seeds; nan where no run kept the samples of both evaluations."""
    before, after = cell.verdicts_before, cell.verdicts
    same = [seed for seed in after if seed in before and before[seed].keys() == after[seed].keys()]
    return average([_asymmetry(before[seed], after[seed]) for seed in same])


def verdict(estimate: Estimate, *, predicted: bool) -> Verdict | None:
    """What the interval says; `predicted` means that a value above 0 was. None where nothing was measured.

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


def _refuse_twins(cell: Cell) -> None:
    seeds: dict[int, Path] = {}
    for run in cell.runs:
        seed = seed_of(run)
        if seed in seeds:
            raise ValueError(f"{seeds[seed]} and {run.path} are the same cell and seed. Name the runs of one study.")
        seeds[seed] = run.path


def _asymmetry(before: Mapping[SampleName, Graded], after: Mapping[SampleName, Graded]) -> Estimate:
    samples = sorted(after)
    gaps: list[float | None] = []
    for sample in samples:
        old, new = (side[sample].grades for side in (before, after))
        grades = [new.get(A_R), old.get(A_R), new.get(A_P), old.get(A_P)]
        known = [float(value) for value in grades if value is not None]
        gaps.append((known[0] - known[1]) - (known[2] - known[3]) if len(known) == len(grades) else None)
    return metrics.average(gaps, [after[sample].puzzle for sample in samples])
