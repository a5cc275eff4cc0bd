"""Compare two evaluations of the same samples: `percasym compare A B`, each an evaluation directory or one finished run.

The first is the reference. Differences are paired by sample; their intervals allow for samples that share a puzzle, as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from percasym.metrics import contributed
from percasym.report.comparison import Verdict, verdict
from percasym.report.comparison_table import BROKEN, stacked
from percasym.report.load import CONTRIBUTIONS, METRICS, SAMPLED, Grades, RunRecord
from percasym.report.study import A, require_same_rows
from percasym.report.tables import markdown_table
from percasym.report.words import CONTRIBUTE, counted, percent
from percasym.statistics import gain, proportion
from percasym.types import Estimate

KIND = "evaluation"
"""`kind` in the meta.json of an evaluation directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedMetric:
    """One metric of two evaluations."""

    name: str
    first: Estimate | None = None
    """None, as `second`, for a contribution to the difference in a."""
    second: Estimate | None = None
    difference: Estimate
    """Second minus first, paired by sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedEvaluations:
    """Two evaluations on the same samples."""

    first: Path
    second: Path
    num_samples: int
    num_puzzles: int
    metrics: tuple[PairedMetric, ...]


def is_evaluation(run: RunRecord) -> bool:
    """Whether a directory was written by `percasym evaluate`."""
    return run.meta.get("kind") == KIND


def pair(first: RunRecord, second: RunRecord) -> PairedEvaluations:
    """Two evaluations paired by sample, in every metric that both measured.

    Raises ValueError when one of them has no samples, or they are of other samples or other collected rows.
    """
    require_same_rows(first, second)
    old, new = _grades(first), _grades(second)
    if old.keys() != new.keys():
        shared = len(old.keys() & new.keys())
        raise ValueError(
            f"{first.path} and {second.path} share {shared} of {len(old)} and {len(new)} samples, and only the same samples can be paired. "
            "Evaluate both with the same task and evaluation.num_samples."
        )
    names = sorted(old)
    if differ := [name for name in names if old[name].puzzle != new[name].puzzle]:
        raise ValueError(
            f"Sample {differ[0][3]} of {first.path} is another puzzle than that of {second.path}: the tasks differ. "
            "Evaluate both with the same options of the task."
        )
    puzzles = [old[name].puzzle for name in names]
    found = []
    for key, title in {**METRICS, **SAMPLED}.items():
        sides = [[side[name].grades.get(key) for name in names] for side in (old, new)]
        if any(all(value is None for value in values) for values in sides):
            continue
        one, other = (proportion(values, puzzles) for values in sides)
        found.append(PairedMetric(name=title, first=one, second=other, difference=gain(sides[0], sides[1], puzzles)))
        if key == A:
            before, after = ([side[name].headline for name in names] for side in (old, new))
            parts = contributed(before, after, puzzles).items()
            found += [PairedMetric(name=f"  {CONTRIBUTIONS[part]}", difference=share) for part, share in parts if share.n]
    return PairedEvaluations(
        first=first.path, second=second.path, num_samples=len(names), num_puzzles=len(set(puzzles)), metrics=tuple(found)
    )


def paired_tables(paired: PairedEvaluations) -> list[Table]:
    """Both evaluations and their difference in percent, for a terminal: intervals beside their numbers, and below them."""
    return [_paired_table(paired, stack) for stack in (False, True)]


def _paired_table(paired: PairedEvaluations, stack: bool) -> Table:
    title = "accuracy in % [95 % interval]"
    shown = Table(
        box=SIMPLE_HEAD, title=title, title_justify="left", caption=_caption(paired), caption_justify="left", pad_edge=False,
        collapse_padding=True,
    )  # fmt: skip
    shown.add_column("", no_wrap=True)
    for column in ("A", "B", "B - A, paired", "verdict"):
        shown.add_column(column, justify="right" if column != "verdict" else "left", no_wrap=True)
    for one in paired.metrics:
        found = verdict(one.difference, predicted=False)
        style = "" if found is not Verdict.clear else "green" if one.difference.mean > 0 else "red"
        numbers = ["" if side is None else percent(side) for side in (one.first, one.second)]
        first, second, difference = map(stacked if stack else Text, (*numbers, percent(one.difference, signed=True)))
        difference.stylize(style)
        shown.add_row(one.name, first, second, difference, "" if found is None else BROKEN[found] if stack else str(found))
    return shown


def evaluations_markdown(runs: Sequence[RunRecord]) -> str:
    """One row for each evaluation directory: every metric with its interval."""
    rows = []
    for run in runs:
        after = run.summary.after if run.summary else {}
        num = max((estimate.n for estimate in after.values()), default=0)
        rows.append([run.cell, str(num), *(percent(after.get(key)) for key in METRICS)])
    return markdown_table(("evaluation", "n", *METRICS.values()), rows)


def _grades(run: RunRecord) -> Grades:
    if run.summary is None or run.grades_after is None:
        raise ValueError(f"{run.path} holds no finished evaluation. `percasym status` says how far a run is.")
    return run.grades_after


def _caption(paired: PairedEvaluations) -> str:
    sizes = f"{counted(paired.num_samples, 'sample')} of {counted(paired.num_puzzles, 'puzzle')}."
    lines = [f"A: {paired.first}", f"B: {paired.second}", sizes]
    if any(one.first is None for one in paired.metrics):
        lines.append(CONTRIBUTE)
    if any(not math.isnan(one.difference.mean) and one.name.startswith("faithful") for one in paired.metrics):
        lines.append("Faithful is over the samples whose percept both stated readably.")
    return "\n".join(lines)
