"""The numbers of a study as rows: each metric of each cell with its interval over seeds, and its paired difference to the baseline."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from percasym.report.load import METRICS
from percasym.report.study import CellGroup, Study, seed_of
from percasym.report.table import README_COLUMNS, percent
from percasym.types import Estimate

HEADER = ("cell", "seeds", *(f"{title}{more}" for title in README_COLUMNS.values() for more in ("", " against none")))
CELLS = ("group", "cell", "strategy", "weight", "metric", "seeds", "mean", "low", "high", "difference", "difference_low", "difference_high")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One cell in the three headline metrics."""

    cell: str
    seeds: int
    texts: tuple[str, ...]
    """Value and difference of each metric, in percent."""


def rows(group: CellGroup) -> list[TableRow]:
    """The table of a group, its baseline first."""
    columns = [column for metric in README_COLUMNS for column in (_texts(group.estimates(metric)), _texts(group.differences(metric), True))]
    return [
        TableRow(cell=cell.name, seeds=len(cell.runs), texts=texts)
        for cell, *texts_of in zip(group.cells, *columns, strict=True)
        if (texts := tuple(texts_of))
    ]


def note(group: CellGroup) -> str:
    """What the intervals of a group are intervals of."""
    over = (
        "over seeds (Student's t, spread pooled over the cells)"
        if group.has_spread
        else "over test samples, for too few cells have two finished seeds"
    )
    baseline = group.baseline
    against = (
        f"Differences are to {baseline.name}, paired by seed and sample, with intervals over test samples (a dash: nothing to pair)."
        if baseline
        else "There is no cell with balance=none, so there are no differences."
    )
    return f"Percent of the test split with 95 % intervals {over}. {against}"


def markdown(group: CellGroup) -> str:
    """The table for a README."""
    lines = [HEADER, ("---", *["---:"] * (len(HEADER) - 1)), *((row.cell, str(row.seeds), *row.texts) for row in rows(group))]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def html(group: CellGroup) -> str:
    """The table for the page; it scrolls by itself where the page is narrow."""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in HEADER)
    body = "".join(
        f'<tr><th scope="row">{escape(row.cell)}</th>{"".join(f"<td>{escape(text)}</td>" for text in (str(row.seeds), *row.texts))}</tr>'
        for row in rows(group)
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll" tabindex="0" role="region" aria-label="table of {escape(group.title)}">{table}</div>'


def cells_csv(study: Study) -> str:
    """Every metric of every cell, a row for each; empty where nothing was measured."""
    return _csv(CELLS, (row for group in study.groups for row in _cell_rows(group)))


def runs_csv(study: Study) -> str:
    """Every run with its status and its metrics after training."""
    lines = []
    for run in study.runs:
        after = {} if run.summary is None else run.summary.after
        means = [_plain(after[key].mean) if key in after else "" for key in METRICS]
        lines.append([run.cell, str(seed_of(run)), str(run.meta["status"]), *means])
    return _csv(("cell", "seed", "status", *METRICS), lines)


def _cell_rows(group: CellGroup) -> Iterator[list[str]]:
    for metric in METRICS:
        columns = zip(group.cells, group.estimates(metric), group.differences(metric), strict=True)
        for cell, value, difference in columns:
            numbers = [_plain(end) for one in (value, difference) for end in (one.mean, *one.ci95)]
            yield [group.title, cell.name, cell.strategy, _plain(cell.weights[0]), metric, str(value.n), *numbers]


def _csv(header: Sequence[str], lines: Iterator[list[str]] | Sequence[Sequence[str]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return out.getvalue()


def _plain(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _texts(estimates: Sequence[Estimate], signed: bool = False) -> list[str]:
    return [percent(estimate, signed=signed) for estimate in estimates]
