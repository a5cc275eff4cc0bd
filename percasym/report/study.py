"""The runs of a study as what they are compared by: cells of several seeds, in groups that share task, model and paradigm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from percasym.metrics import gain
from percasym.report.load import RunRecord, Summary
from percasym.report.seeds import MIN_FREEDOM, freedom_of, over_seeds
from percasym.report.verdicts import Graded, SampleName, first_evaluation, graded, last_evaluation
from percasym.types import Estimate

WEIGHT = "balance/weight"
UNMOVED = ("none", "fixed")
"""Strategies whose weight does not move during training (that of `none` only as far as the lengths of samples do)."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination of choices; its finished runs differ in their seeds only."""

    name: str
    label: str
    """What tells it from the other cells of its group, in a word."""
    strategy: str
    runs: tuple[RunRecord, ...]
    """Finished, by seed."""

    @property
    def moves(self) -> bool:
        """Whether its strategy moves the weight during training."""
        return self.strategy not in UNMOVED

    @cached_property
    def weights(self) -> tuple[float, float, float]:
        """Mean, least and largest weight of perception over training and seeds; nan where none was logged."""
        series = [run.series(WEIGHT).values for run in self.runs]
        every = [value for values in series for value in values if math.isfinite(value)]
        return (fmean(every), min(every), max(every)) if every else (math.nan, math.nan, math.nan)

    @cached_property
    def verdicts(self) -> Mapping[int, Mapping[SampleName, Graded]]:
        """Seed -> sample -> its puzzle and grades, of each run's last evaluation."""
        return self._graded(last_evaluation)

    @cached_property
    def verdicts_before(self) -> Mapping[int, Mapping[SampleName, Graded]]:
        """The same of the evaluation before training."""
        return self._graded(first_evaluation)

    def _graded(self, evaluation: Callable[[Path], Path | None]) -> Mapping[int, Mapping[SampleName, Graded]]:
        files = {seed_of(run): evaluation(run.path) for run in self.runs}
        return {seed: graded(path) for seed, path in files.items() if path is not None}


@dataclass(frozen=True, kw_only=True)
class CellGroup:
    """Cells that may be compared: the same task, model and paradigm."""

    title: str
    cells: tuple[Cell, ...]
    """Those with a finished run, by weight."""

    @property
    def baseline(self) -> Cell | None:
        """The first cell without balancing."""
        return next((cell for cell in self.cells if cell.strategy == "none"), None)

    @property
    def has_spread(self) -> bool:
        """Whether enough cells have two seeds, so that intervals are over seeds; otherwise they are over test samples."""
        return freedom_of(len(cell.runs) for cell in self.cells) >= MIN_FREEDOM

    def estimates(self, metric: str, part: str = "after") -> list[Estimate]:
        """Mean over the seeds of each cell with its 95 % interval; nan where a cell did not measure it.

        `part` is before, after or gain. Intervals end at the range of the number (-1 or 0, and 1). Before training all seeds of a cell are
        the same model, which says nothing about their spread: those intervals are over test samples.
        """
        found = [[measured for run in cell.runs if (measured := _measured(run.summary, part, metric)) is not None] for cell in self.cells]
        spread = None if part == "before" else over_seeds([[estimate.mean for estimate in estimates] for estimates in found])
        least = -1.0 if part == "gain" else 0.0
        return [_inside(one, least) for one in spread or map(average, found)]

    def differences(self, metric: str) -> list[Estimate]:
        """Paired difference of each cell to the baseline; nan for the baseline itself and where nothing can be paired.

        A seed is compared with the same seed on the same samples. Mean and interval (over test samples) are averaged over seeds, which
        share their test set and do not enlarge it.
        """
        return [average([] if cell is self.baseline else self._paired(cell, metric)) for cell in self.cells]

    def _paired(self, cell: Cell, metric: str) -> list[Estimate]:
        base = self.baseline.verdicts if self.baseline else {}
        same = [(base[seed], own) for seed, own in cell.verdicts.items() if seed in base and own.keys() == base[seed].keys()]
        return [_gain(before, after, metric) for before, after in same]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that a report speaks of."""

    name: str
    runs: tuple[RunRecord, ...]
    groups: tuple[CellGroup, ...]

    @property
    def num_unfinished(self) -> int:
        """Runs that no figure and no table shows."""
        return sum(run.summary is None for run in self.runs)


def study_of(runs: Iterable[RunRecord], name: str) -> Study:
    """Runs in their groups and cells; those that are not finished belong to neither."""
    everything = tuple(runs)
    groups: dict[str, dict[str, list[RunRecord]]] = {}
    for run in everything:
        if run.summary is not None:
            groups.setdefault(_group(run), {}).setdefault(run.cell, []).append(run)
    return Study(name=name, runs=everything, groups=tuple(_grouped(title, cells) for title, cells in groups.items()))


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


def _gain(before: Mapping[SampleName, Graded], after: Mapping[SampleName, Graded], metric: str) -> Estimate:
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
    """The baseline, constant weights in order, then what moves them."""
    order = (*UNMOVED, cell.strategy).index(cell.strategy)
    return order, 0.0 if math.isnan(cell.weights[0]) else cell.weights[0], cell.name


def _label(name: str, shared: set[str]) -> str:
    own = [part.removeprefix("fixed") or part for part in name.split("-") if part not in shared]
    return "-".join(own) or name.rpartition("-")[2]


def _group(run: RunRecord) -> str:
    """Task, model and paradigm as the directory names them, with the model's size."""
    words = run.cell.split("-")
    if len(words) < 4:  # Not the directory that a study gives: nothing is known that would part it from the others.
        return "all runs"
    size = (run.config.get("model") or {}).get("size")
    return " ".join([*words[:3], *([str(size)] if size else [])])


def _strategy(config: Mapping[str, Any]) -> str:
    module = str((config.get("balance") or {}).get("_target_", "")).split(".")[:-1]
    return module[-1] if module else ""


def _measured(summary: Summary | None, part: str, metric: str) -> Estimate | None:
    estimate = None if summary is None else getattr(summary, part).get(metric)
    return None if estimate is None or math.isnan(estimate.mean) else estimate


def _inside(estimate: Estimate, least: float) -> Estimate:
    low, high = estimate.ci95
    return Estimate(mean=estimate.mean, ci95=(max(low, least), min(high, 1.0)), n=estimate.n)


def study_name(runs: Sequence[RunRecord], folder: Path) -> str:
    """What a report is called: the study that its runs name, or the folder that holds them."""
    named = {str(run.config.get("study", "")) for run in runs}
    return named.pop() if len(named) == 1 and "" not in named else folder.name
