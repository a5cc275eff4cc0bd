"""Group the runs of a study: cells of several seeds, and groups of cells that share task, model and paradigm.

All numbers of a cell are estimated from the grades of its test samples by `percasym.statistics`: over puzzles, and over seeds where it has
several. Where the samples are gone, or are not those of summary.json, the intervals that the runs recorded are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean

from percasym import statistics
from percasym.metrics import contributed
from percasym.report.load import CONTRIBUTIONS, HEADLINE, METRICS, SAMPLED, SAMPLED_HEADLINE, Grades, RunRecord, Summary
from percasym.runs.identity import ABSENT, differing
from percasym.runs.records import option_name
from percasym.types import Estimate

WEIGHT = "balance/weight"
CONSTANT = ("none", "fixed")
"""Strategies with a constant weight during training (that of `none` varies with the lengths of the samples only)."""
PARTS = ("before", "after", "gain")
"""Parts of summary.json."""
SETTING = ("task", "model", "paradigm", "balance")
"""Groups of a configuration in which the seeds of a cell agree."""
WHERE = ("task.path", "model.path")
"""Options that may differ: where data and weights lie. Rows are compared by their fingerprint."""
SAME = 1e-6
"""Greatest difference between a mean in summary.json and that of the samples of the same evaluation: rounding."""
Graded = tuple[Grades, Grades, int]
"""Two evaluations of the same samples, and the seed."""
A, A_P, A_R = HEADLINE
"""Keys of the three metrics, in the order of the reports."""


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

    def estimate(self, metric: str, part: str = "after") -> Estimate:
        """Mean over samples and seeds with its 95 % interval; nan where the cell did not measure it. `part` is one of `PARTS`.

        Before training the seeds of a cell are one model: where all have the same grades, they count once. A contribution to the change
        of a has an estimate as `gain` only.
        """
        if metric in CONTRIBUTIONS:
            return self.contributions.get(metric, statistics.nothing()) if part == "gain" else statistics.nothing()
        recorded = [one for run in self.runs if (one := _recorded(run.summary, part, metric)) is not None]
        if not recorded:
            return statistics.nothing()
        found = _regraded(self.runs, metric, part)
        mean = sum(one.mean for one in recorded) / len(recorded)
        return found if found is not None and abs(found.mean - mean) < SAME else average(recorded)

    @cached_property
    def contributions(self) -> Mapping[str, Estimate]:
        """To the gain of a, by key of `CONTRIBUTIONS`: from the samples, else as recorded; empty where not all runs have them.

        Runs of earlier versions recorded none.
        """
        if any(_recorded(run.summary, "gain", A) is None for run in self.runs):
            return {}
        try:
            kept = self._kept()
        except ValueError:  # `asymmetry` names the file.
            kept = []
        if len(kept) == len(self.runs):
            return _contributed(kept)
        recorded = {key: [one for run in self.runs if (one := _recorded(run.summary, "gain", key)) is not None] for key in CONTRIBUTIONS}
        complete = all(len(found) == len(self.runs) for found in recorded.values())
        return {key: average(found) for key, found in recorded.items()} if complete else {}

    @cached_property
    def asymmetry(self) -> Estimate:
        """gain(a_r) - gain(a_p), paired by seed and sample; nan where no run kept the samples of both evaluations.

        Raises ValueError when a file of samples cannot be read.
        """
        pairs = _Values()
        for before, after, seed in self._kept():
            for name in sorted(after):
                old, new = before[name].grades, after[name].grades
                grades = [new.get(A_R), old.get(A_R), new.get(A_P), old.get(A_P)]
                known = [float(grade) for grade in grades if grade is not None]
                gap = (known[0] - known[1]) - (known[2] - known[3]) if len(known) == len(grades) else None
                pairs.add(0.0 if gap is not None else None, gap, after[name].puzzle, seed)
        return statistics.change(pairs.after, pairs.puzzles, pairs.seeds, reach=2.0)

    def _kept(self) -> list[Graded]:
        """Of each run that kept the same samples of both evaluations: those before and after training. Raises ValueError."""
        sides = [(run.grades_before, run.grades_after, seed_of(run)) for run in self.runs]
        return [(old, new, seed) for old, new, seed in sides if old is not None and new is not None and old.keys() == new.keys()]


class _Values:
    """Values before and after of the same samples, each with its puzzle and seed; parallel lists."""

    def __init__(self) -> None:
        self.before: list[float | None] = []
        self.after: list[float | None] = []
        self.puzzles: list[str] = []
        self.seeds: list[int] = []

    def add(self, before: float | None, after: float | None, puzzle: str, seed: int) -> None:
        """Add one pair."""
        for held, value in ((self.before, before), (self.after, after)):
            held.append(value)
        self.puzzles.append(puzzle)
        self.seeds.append(seed)

    def add_all(self, before: Grades, after: Grades, metric: str, seed: int) -> None:
        """Add the pairs of all samples of two evaluations."""
        for name in sorted(after):
            self.add(before[name].grades.get(metric), after[name].grades.get(metric), after[name].puzzle, seed)

    @property
    def gain(self) -> Estimate:
        """Of the pairs."""
        return statistics.gain(self.before, self.after, self.puzzles, self.seeds)

    @property
    def proportion(self) -> Estimate:
        """Of the values after."""
        return statistics.proportion(self.after, self.puzzles, self.seeds)


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
    def headline(self) -> Mapping[str, str]:
        """The headline metrics and their titles; the contributions to the change of a and the metrics of sampled answers where measured."""
        known = {key for cell in self.cells for run in cell.runs if run.summary for key in run.summary.after}
        parts = CONTRIBUTIONS if any(one.n for cell in self.cells for one in cell.contributions.values()) else {}
        return {A: HEADLINE[A], **parts, **HEADLINE, **{key: title for key, title in SAMPLED_HEADLINE.items() if key in known}}

    def estimates(self, metric: str, part: str = "after") -> list[Estimate]:
        """`Cell.estimate` of each cell."""
        return [cell.estimate(metric, part) for cell in self.cells]

    def differences(self, metric: str) -> list[Estimate]:
        """Paired difference of each cell to the baseline; nan for the baseline itself and where nothing can be paired.

        A seed is paired with the same seed on the same samples of the same data. Raises ValueError when a file of samples cannot be read.
        """
        if metric in CONTRIBUTIONS:
            return [found.get(metric, statistics.nothing()) for found in self._contributions]
        return [statistics.nothing() if cell is self.baseline else self._paired(cell, metric) for cell in self.cells]

    def pairs(self, cell: Cell) -> list[tuple[RunRecord, RunRecord]]:
        """The run of the baseline and that of `cell`, for each seed that both have."""
        base = {seed_of(run): run for run in self.baseline.runs} if self.baseline else {}
        return [(base[seed_of(run)], run) for run in cell.runs if seed_of(run) in base]

    def _paired(self, cell: Cell, metric: str) -> Estimate:
        values = _Values()
        for base, own, seed in self._graded_pairs(cell):
            values.add_all(base, own, metric, seed)
        return values.gain

    @cached_property
    def _contributions(self) -> list[Mapping[str, Estimate]]:
        """To the difference of each cell to the baseline; empty for the baseline itself."""
        return [{} if cell is self.baseline else _contributed(self._graded_pairs(cell)) for cell in self.cells]

    def _graded_pairs(self, cell: Cell) -> list[Graded]:
        """Grades of the baseline and of `cell`, and the seed, of each pair on the same samples of the same data."""
        found = []
        for base, run in self.pairs(cell):
            own, other = run.grades_after, base.grades_after
            if own is not None and other is not None and base.data == run.data and _same_samples(own, other):
                found.append((other, own, seed_of(run)))
        return found


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


def require_same_rows(first: RunRecord, second: RunRecord) -> None:
    """Raise ValueError where two runs recorded different collected rows: a difference between them is not due to the training alone."""
    if first.data != second.data:
        both = " and ".join(run.data or "none" for run in (first, second))
        raise ValueError(
            f"{first.path} and {second.path} were run on different data (fingerprints {both}); only runs on the same rows are compared. "
            "Name runs on the same rows, or repeat one of the two (run.overwrite=true)."
        )


def require_one_setting(first: RunRecord, second: RunRecord) -> None:
    """Raise ValueError where two seeds of a cell were run in other settings: an option that both recorded differs."""
    one, other = ({group: run.config.get(group) or {} for group in SETTING} for run in (first, second))
    held, wanted = (
        {group: {key: side[group][key] for key in one[group] if key in other[group]} for group in SETTING} for side in (one, other)
    )
    if (found := differing(held, wanted, skipped=WHERE)) is not None:
        key, before, after = ("nothing" if value is ABSENT else value for value in found)
        raise ValueError(
            f"{first.path} and {second.path} count as seeds of one cell, and differ in {key}: {before} and {after}. "
            "Name the runs of one study."
        )


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Mean and interval averaged over runs that share their samples; nan over none."""
    known = [estimate for estimate in estimates if not math.isnan(estimate.mean)]
    if not known:
        return statistics.nothing()
    low, high = (fmean(estimate.ci95[end] for estimate in known) for end in (0, 1))
    return Estimate(mean=fmean(estimate.mean for estimate in known), ci95=(low, high), n=max(estimate.n for estimate in known))


def measured(run: RunRecord, summary: Summary) -> Summary:
    """summary.json of a run with the intervals of this revision, made from its samples as those of every cell are."""
    cell = Cell(name=run.cell, label=run.cell, strategy="", runs=(run,))
    parts = {part: {key: cell.estimate(key, part) for key in (*METRICS, *SAMPLED) if key in getattr(summary, part)} for part in PARTS}
    return replace(summary, before=parts["before"], after=parts["after"], gain={**parts["gain"], **cell.contributions})


def _same_samples(one: Grades, other: Grades) -> bool:
    """Whether two evaluations have the same samples of the same puzzles: a task with other options has other puzzles under its keys."""
    return one.keys() == other.keys() and all(one[name].puzzle == other[name].puzzle for name in one)


def _contributed(pairs: Iterable[Graded]) -> dict[str, Estimate]:
    """The contributions to the change of a between evaluations of the same samples, each pair with its seed."""
    before, after, puzzles, seeds = [], [], [], []
    for old, new, seed in pairs:
        for name in sorted(new):
            before.append(old[name].headline)
            after.append(new[name].headline)
            puzzles.append(new[name].puzzle)
            seeds.append(seed)
    return contributed(before, after, puzzles, seeds)


def _regraded(runs: Sequence[RunRecord], metric: str, part: str) -> Estimate | None:
    """The estimate from samples; None unless all of these runs have those of the evaluation."""
    values, seen = _Values(), []
    for run in runs:
        try:
            before, after = run.grades_before, run.grades_after
        except ValueError:  # `Cell.asymmetry` and `CellGroup.differences` name the file.
            return None
        own = before if part == "before" else after
        if own is None or (part == "gain" and (before is None or before.keys() != own.keys())):
            return None
        if part == "before" and own in seen:
            continue
        seen.append(own)
        values.add_all(before if part == "gain" and before is not None else own, own, metric, seed_of(run))
    return values.gain if part == "gain" else values.proportion


def _grouped(title: str, cells: Mapping[str, Sequence[RunRecord]]) -> CellGroup:
    shared = set.intersection(*(set(name.split("-")) for name in cells))
    made = [
        Cell(
            name=name,
            label=_label(name, shared),
            strategy=option_name(runs[0].config, "balance") or "",
            runs=tuple(sorted(runs, key=seed_of)),
        )
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
    """Task, model and paradigm, with the model's size."""
    size = (run.config.get("model") or {}).get("size")
    words = (*(option_name(run.config, group) for group in ("task", "model", "paradigm")), size)
    return " ".join(str(word) for word in words if word) or "all runs"


def _recorded(summary: Summary | None, part: str, metric: str) -> Estimate | None:
    estimate = None if summary is None else getattr(summary, part).get(metric)
    return None if estimate is None or math.isnan(estimate.mean) else estimate
