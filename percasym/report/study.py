"""Group the runs of a study: cells of several seeds, and groups of cells that share task, model and paradigm.

Intervals of a mean over training seeds are Student's, with the spread pooled over the cells of a group. Two seeds of one cell do not
determine its spread (t = 12.7); ten cells of two seeds do, if all cells vary alike, as a one-way analysis of variance assumes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from percasym.metrics import Z95, gain
from percasym.report.load import RunRecord, SampleGrades, SampleName, Summary, first_evaluation, last_evaluation, read_grades
from percasym.types import Estimate

WEIGHT = "balance/weight"
CONSTANT = ("none", "fixed")
"""Strategies with a constant weight during training (that of `none` varies with the lengths of the samples only)."""
STUDENT_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Two-sided 95 % quantiles of Student's t for 1, 2, 3 ... 30 degrees of freedom (any table of it)."""
MIN_FREEDOM = 2
"""Fewest degrees of freedom with an interval over seeds: with one it is three times as long (t = 12.7 instead of 4.3)."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination of choices; its finished runs differ in their seeds only."""

    name: str
    label: str
    """The part of `name` that the other cells of the group do not share."""
    strategy: str
    runs: tuple[RunRecord, ...]
    """Finished, by seed."""

    @property
    def moves(self) -> bool:
        """Whether the strategy changes the weight during training."""
        return self.strategy not in CONSTANT

    @cached_property
    def weights(self) -> tuple[float, float, float]:
        """Mean, minimum and maximum of the perception weight over training and seeds; nan where none was logged."""
        series = [run.series(WEIGHT).values for run in self.runs]
        every = [value for values in series for value in values if math.isfinite(value)]
        return (fmean(every), min(every), max(every)) if every else (math.nan, math.nan, math.nan)

    @cached_property
    def grades_after(self) -> Mapping[int, Mapping[SampleName, SampleGrades]]:
        """Seed -> sample -> puzzle and grades of each run's last evaluation."""
        return self._grades(last_evaluation)

    @cached_property
    def grades_before(self) -> Mapping[int, Mapping[SampleName, SampleGrades]]:
        """The same of the evaluation before training."""
        return self._grades(first_evaluation)

    def _grades(self, evaluation: Callable[[Path], Path | None]) -> Mapping[int, Mapping[SampleName, SampleGrades]]:
        files = {seed_of(run): evaluation(run.path) for run in self.runs}
        return {seed: read_grades(path) for seed, path in files.items() if path is not None}


@dataclass(frozen=True, kw_only=True)
class CellGroup:
    """Comparable cells: the same task, model and paradigm."""

    title: str
    cells: tuple[Cell, ...]
    """Those with a finished run, by weight."""

    @property
    def baseline(self) -> Cell | None:
        """The first cell without balancing."""
        return next((cell for cell in self.cells if cell.strategy == "none"), None)

    @property
    def has_spread(self) -> bool:
        """Whether enough cells have two seeds for intervals over seeds; otherwise intervals are over test samples."""
        return freedom_of(len(cell.runs) for cell in self.cells) >= MIN_FREEDOM

    def estimates(self, metric: str, part: str = "after") -> list[Estimate]:
        """Mean over the seeds of each cell with its 95 % interval; nan where a cell did not measure it.

        `part` is before, after or gain. Intervals are clipped to the range of the metric (-1 or 0, to 1). Before training all seeds of a
        cell are the same model and have no spread, so those intervals are over test samples.
        """
        found = [[measured for run in cell.runs if (measured := _measured(run.summary, part, metric)) is not None] for cell in self.cells]
        spread = None if part == "before" else over_seeds([[estimate.mean for estimate in estimates] for estimates in found])
        least = -1.0 if part == "gain" else 0.0
        return [_clipped(one, least) for one in spread or map(average, found)]

    def differences(self, metric: str) -> list[Estimate]:
        """Paired difference of each cell to the baseline; nan for the baseline itself and where nothing can be paired.

        A seed is paired with the same seed on the same samples. Mean and interval (over test samples) are averaged over the seeds, which
        share their test set and do not enlarge it.
        """
        return [average([] if cell is self.baseline else self._paired(cell, metric)) for cell in self.cells]

    def _paired(self, cell: Cell, metric: str) -> list[Estimate]:
        base = self.baseline.grades_after if self.baseline else {}
        same = [(base[seed], own) for seed, own in cell.grades_after.items() if seed in base and own.keys() == base[seed].keys()]
        return [_gain(before, after, metric) for before, after in same]


@dataclass(frozen=True, kw_only=True)
class Study:
    """The runs of a report, and its finished ones in groups of cells."""

    name: str
    runs: tuple[RunRecord, ...]
    groups: tuple[CellGroup, ...]

    @property
    def num_unfinished(self) -> int:
        """Runs without a summary; no figure and no table shows them."""
        return sum(run.summary is None for run in self.runs)


def study_of(runs: Iterable[RunRecord], name: str) -> Study:
    """Sort finished runs into groups and cells."""
    everything = tuple(runs)
    groups: dict[str, dict[str, list[RunRecord]]] = {}
    for run in everything:
        if run.summary is not None:
            groups.setdefault(_group(run), {}).setdefault(run.cell, []).append(run)
    return Study(name=name, runs=everything, groups=tuple(_grouped(title, cells) for title, cells in groups.items()))


def study_name(runs: Sequence[RunRecord], folder: Path) -> str:
    """The study that all runs name in their configuration, otherwise the name of `folder`."""
    named = {str(run.config.get("study", "")) for run in runs}
    return named.pop() if len(named) == 1 and "" not in named else folder.name


def seed_of(run: RunRecord) -> int:
    """The training seed."""
    return int(run.config.get("seed", 0))


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Mean and interval averaged over runs that share their samples; nan over none."""
    known = [estimate for estimate in estimates if not math.isnan(estimate.mean)]
    if not known:
        return Estimate(mean=math.nan, ci95=(math.nan, math.nan), n=0)
    low, high = (fmean(estimate.ci95[end] for estimate in known) for end in (0, 1))
    return Estimate(mean=fmean(estimate.mean for estimate in known), ci95=(low, high), n=len(known))


def over_seeds(cells: Sequence[Sequence[float]]) -> list[Estimate] | None:
    """Mean of each cell with its 95 % interval, from one value a seed; None below `MIN_FREEDOM` degrees of freedom.

    With s^2 the variance within cells, pooled over all of them (d = values - cells degrees of freedom), the interval of a cell
    with n seeds is mean +- t_d s / sqrt(n). It covers other seeds on the same test samples.
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
    """Degrees of freedom of cells with these numbers of seeds.

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


def _gain(before: Mapping[SampleName, SampleGrades], after: Mapping[SampleName, SampleGrades], metric: str) -> Estimate:
    samples = sorted(after)
    old, new = ([side[sample].grades.get(metric) for sample in samples] for side in (before, after))
    return gain(old, new, [after[sample].puzzle for sample in samples])


def _grouped(title: str, cells: Mapping[str, Sequence[RunRecord]]) -> CellGroup:
    shared = set.intersection(*(set(name.split("-")) for name in cells))
    made = [
        Cell(name=name, label=_label(name, shared), strategy=_strategy(runs[0].config), runs=tuple(sorted(runs, key=seed_of)))
        for name, runs in cells.items()
    ]
    return CellGroup(title=title, cells=tuple(sorted(made, key=_rank)))


def _rank(cell: Cell) -> tuple[int, float, str]:
    """The baseline first, then constant weights in order, then strategies that change the weight."""
    order = (*CONSTANT, cell.strategy).index(cell.strategy)
    return order, 0.0 if math.isnan(cell.weights[0]) else cell.weights[0], cell.name


def _label(name: str, shared: set[str]) -> str:
    own = [part.removeprefix("fixed") or part for part in name.split("-") if part not in shared]
    return "-".join(own) or "-".join(name.split("-")[3:]) or name  # One cell shares all of its name: without task, model and paradigm.


def _group(run: RunRecord) -> str:
    """Task, model and paradigm as in the directory's name, with the model's size."""
    words = run.cell.split("-")
    if len(words) < 4:  # Not a directory name that a study gives: task, model and paradigm are unknown.
        return "all runs"
    size = (run.config.get("model") or {}).get("size")
    return " ".join([*words[:3], *([str(size)] if size else [])])


def _strategy(config: Mapping[str, Any]) -> str:
    module = str((config.get("balance") or {}).get("_target_", "")).split(".")[:-1]
    return module[-1] if module else ""


def _measured(summary: Summary | None, part: str, metric: str) -> Estimate | None:
    estimate = None if summary is None else getattr(summary, part).get(metric)
    return None if estimate is None or math.isnan(estimate.mean) else estimate


def _clipped(estimate: Estimate, least: float) -> Estimate:
    low, high = estimate.ci95
    return Estimate(mean=estimate.mean, ci95=(max(low, least), min(high, 1.0)), n=estimate.n)
