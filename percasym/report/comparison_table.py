"""The comparison of a study's cells for a terminal: one table for each group of cells, and its findings as sentences.

Up to three cells stand beside each other where the terminal is wide enough (two fit 100 columns); otherwise each metric has a row for
each cell. Without a terminal the text is at least `PIPED_COLUMNS` wide and has no colour codes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from percasym.report.comparison import ComparedCell, Comparison, Verdict, compare
from percasym.report.findings import counted, findings, interval
from percasym.report.study import Study
from percasym.report.table import README_COLUMNS, percent
from percasym.types import Estimate

MAX_WIDE = 3
"""Cells beside each other; four need 170 columns."""
PIPED_COLUMNS = 100
"""Least width where the output is no terminal: rich would take 80."""
UNBOUNDED = 10_000
"""Columns of a terminal in which no table is too wide, to measure what it needs."""
ASYMMETRY = "asymmetry"
BROKEN = {Verdict.clear: "clear of 0", Verdict.unresolved: "not resolved\nat this n", Verdict.against: "against the\nprediction"}
"""The verdicts in a narrow column."""
EMPTY = Text("")


def console() -> Console:
    """Standard output, at least `PIPED_COLUMNS` wide where it is no terminal."""
    out = Console(highlight=False)
    return out if out.is_terminal else Console(highlight=False, width=max(out.width, PIPED_COLUMNS))


def show(study: Study, out: Console) -> bool:
    """Print the comparison of each group that measured something; False where there is none.

    Raises ValueError when the samples of a run cannot be read, or a cell has two runs of one seed.
    """
    measured = [comparison for comparison in map(compare, study.groups) if comparison.is_measured]
    for comparison in measured:
        out.print(Text(f"\n{comparison.title}: accuracy in % [95 % interval]", style="bold"))
        out.print(fitting(comparison, out))
        out.print()
        for line in lines(comparison):
            out.print(line)
    return bool(measured)


def fitting(comparison: Comparison, out: Console) -> Table:
    """The first of these tables that fits `out`: cells beside each other, a row for each cell, the same with stacked intervals."""
    tables = list(_tables(comparison))
    unbounded = out.options.update(width=UNBOUNDED)
    return next((table for table in tables if Measurement.get(out, unbounded, table).maximum <= out.width), tables[-1])


def lines(comparison: Comparison) -> Iterator[Text]:
    """What stands below the table: how to read it, and the findings of few cells. In the table of many each row has its verdict."""
    yield Text(note(comparison), style="dim")
    if len(comparison.cells) <= MAX_WIDE:
        yield from (Text(finding.sentence) for finding in findings(comparison))


def note(comparison: Comparison) -> str:
    """How the numbers are to be read."""
    seeds = sorted({cell.num_seeds for cell in comparison.cells})
    many = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    over = "over seeds for after and gain, over test samples for the rest" if comparison.is_over_seeds else "over test samples"
    said = (
        f"Test split, {counted(comparison.num_samples)}, seeds in a cell: {many}; intervals {over}. "
        f"{ASYMMETRY.capitalize()} is the gain of a_r minus the gain of a_p, paired by sample."
    )
    if comparison.baseline is None:
        return f"{said} No cell has balance=none, so there are no differences to it."
    return f"{said} Differences are those after training, paired by seed and sample." if len(comparison.cells) > 1 else said


def _tables(comparison: Comparison) -> Iterator[Table]:
    if len(comparison.cells) <= MAX_WIDE and _has_one_start(comparison):
        yield _beside(comparison, gap=1)
        yield _beside(comparison, gap=0)
    yield _below(comparison, break_verdicts=False)
    yield _below(comparison, break_verdicts=True)
    yield _below(comparison, break_verdicts=True, stack=True)


def _beside(comparison: Comparison, *, gap: int) -> Table:
    """A row for each metric; an interval stands below its number. Columns are `gap` + 1 apart."""
    cells, baseline = comparison.cells, comparison.baseline
    others = [cell for cell in cells if baseline and cell is not baseline]
    headers = ["\nbefore", *(header for cell in cells for header in (f"{cell.label}\nafter", "\ngain"))]
    table = _table(*headers, gap=gap)
    for cell in others:
        table.add_column(Text(f"{cell.label} minus\n{baseline.label if baseline else ''}"), justify="right", no_wrap=True)
        table.add_column(Text("\nverdict"), no_wrap=True)
    for metric, name in README_COLUMNS.items():
        row = [Text(name), _stacked(percent(cells[0].changes[metric].before))]
        for cell in cells:
            row += [_stacked(percent(cell.changes[metric].after)), _stacked(points(cell.changes[metric].gain))]
        for cell in others:
            change = cell.changes[metric]
            row += [_stacked(points(change.difference)), _verdict(change.difference, change.verdict, BROKEN)]
        table.add_row(*row)
    row = [Text(ASYMMETRY), EMPTY]
    for cell in cells:
        said = [_stacked(points(cell.asymmetry)), _verdict(cell.asymmetry, cell.asymmetry_verdict, BROKEN)]
        row += [EMPTY, Text("\n").join(part for part in said if part)]
    table.add_row(*row)
    return table


def _below(comparison: Comparison, *, break_verdicts: bool, stack: bool = False) -> Table:
    """A row for each cell, below the name of the metric."""
    baseline, phrases = comparison.baseline, BROKEN if break_verdicts else {one: str(one) for one in Verdict}
    number = _stacked if stack else Text
    table = _table("before", "after", "gain", *([f"minus {baseline.label}"] if baseline else []))
    table.add_column("verdict", no_wrap=True)

    def add(cell: ComparedCell, before: str, after: str, gain: str, other: str, one: Estimate, verdict: Verdict | None) -> None:
        numbers = map(number, (before, after, gain, *([other] if baseline else [])))
        table.add_row(Text(f"  {cell.label}"), *numbers, _verdict(one, verdict, phrases))

    for metric, name in README_COLUMNS.items():
        table.add_row(Text(name, style="bold"))
        for cell in comparison.cells:
            change = cell.changes[metric]
            to = "" if cell.is_baseline else points(change.difference)
            add(cell, percent(change.before), percent(change.after), points(change.gain), to, change.difference, change.verdict)
    table.add_row(Text(ASYMMETRY, style="bold"))
    for cell in comparison.cells:
        add(cell, "", "", points(cell.asymmetry), "", cell.asymmetry, cell.asymmetry_verdict)
    return table


def _table(*numbers: str, gap: int = 1) -> Table:
    """A table with an unnamed first column and these right-aligned ones."""
    table = Table(box=SIMPLE_HEAD, padding=(0, gap), collapse_padding=True, pad_edge=False, show_edge=False)
    table.add_column("", overflow="fold")
    for header in numbers:
        table.add_column(Text(header), justify="right", no_wrap=True)
    return table


def _has_one_start(comparison: Comparison) -> bool:
    """Whether one column holds the accuracy before training of all cells: they start from the same model."""
    starts = {tuple(percent(cell.changes[metric].before) for metric in README_COLUMNS) for cell in comparison.cells}
    return len(starts) == 1


def points(estimate: Estimate) -> str:
    """A difference in percentage points with its interval; a dash when nothing was measured.

    >>> points(Estimate(mean=0.066, ci95=(0.003, 0.121), n=9))
    '+6.6 [+0.3, +12.1]'
    """
    return "-" if math.isnan(estimate.mean) else f"{100 * estimate.mean:+z.1f} {interval(estimate)}"


def _stacked(number: str) -> Text:
    """The interval below its number."""
    return Text(number.replace(" ", "\n", 1))


def _verdict(estimate: Estimate, verdict: Verdict | None, phrases: dict[Verdict, str]) -> Text:
    """Green above 0 and red below it, where the interval says which."""
    if verdict is None:
        return EMPTY
    style = "" if verdict is Verdict.unresolved else "green" if estimate.mean > 0 else "red"
    return Text(phrases[verdict], style=style)
