"""Tables of a comparison: for a terminal, and as rows for Markdown and the page.

In a terminal up to three cells stand beside each other where the width allows it (two fit 100 columns); otherwise each metric has a row
for each cell. Without a terminal the text is at least `PIPED_COLUMNS` wide and has no colour codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from percasym.report.comparison import Comparison, Verdict, compare_all, findings
from percasym.report.header import Header, header
from percasym.report.load import CONTRIBUTIONS
from percasym.report.study import Study
from percasym.report.tables import markdown_table
from percasym.report.words import CONTRIBUTE, percent, points, sample_count
from percasym.runs.console import PlainConsole
from percasym.types import Estimate

MAX_WIDE = 3
"""Cells beside each other; four need 170 columns."""
PIPED_COLUMNS = 100
"""Minimum width where the output is not a terminal: rich would take 80."""
UNBOUNDED = 10_000
"""Columns of a terminal in which every table fits, to measure what a table needs."""
ASYMMETRY = "asymmetry"
MEANINGS = {
    "a": "right answers end to end",
    "via a_p": "contribution to the change of a: a percept became right (or wrong), and that changed the answer",
    "via a_r": "contribution: another answer to a percept that is right in both",
    "via both": "contribution: what needed both changes",
    "other": "contribution: answers to percepts that are wrong in both",
    "a_p": "percepts stated exactly",
    "a_r": "right answers given the true percept",
    "sampled a": "right answers end to end, sampled at temperature 1",
    "sampled a_p": "percepts stated exactly, sampled at temperature 1",
    "sampled a_r": "right answers given the true percept, sampled at temperature 1",
    ASYMMETRY: "gain of a_r minus gain of a_p",
}
"""Of the metrics, for readers who do not know the names."""
BROKEN = {Verdict.clear: "clear of 0", Verdict.unresolved: "not resolved\nat this n", Verdict.against: "against the\nprediction"}
"""The verdicts in a narrow column."""
WHOLE = {one: str(one) for one in Verdict}
COLOURS = {1: "green", 0: "", -1: "red"}
EMPTY = Text("")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRow:
    """One cell in one metric, or in the asymmetry; texts are empty where a number has no meaning."""

    metric: str
    cell: str
    before: str
    after: str
    gain: str
    difference: str
    """To the baseline; empty without one."""
    verdict: Verdict | None
    """Of the difference; for the asymmetry of the gain."""
    sign: int
    """1 or -1 where the verdict excludes 0, otherwise 0."""


def comparison_rows(comparison: Comparison) -> list[ComparisonRow]:
    """All cells in each metric of the comparison, then in the asymmetry."""
    rows = []
    for metric, name in comparison.metrics.items():
        for cell in comparison.cells:
            change = cell.changes[metric]
            rows.append(
                ComparisonRow(
                    metric=name, cell=cell.label,
                    before=_level(metric, change.before), after=_level(metric, change.after), gain=points(change.gain),
                    difference="" if cell.is_baseline or comparison.baseline is None else points(change.difference),
                    verdict=change.verdict, sign=_sign(change.difference, change.verdict),
                )
            )  # fmt: skip
    for cell in comparison.cells:
        gap, found = cell.asymmetry, cell.asymmetry_verdict
        row = ComparisonRow(
            metric=ASYMMETRY, cell=cell.label, before="", after="", gain=points(gap), difference="", verdict=found, sign=_sign(gap, found)
        )
        rows.append(row)
    return rows


def comparison_markdown(comparison: Comparison) -> str:
    """The rows as a Markdown table."""
    against = difference_header(comparison)
    lines = [
        [row.metric, row.cell, row.before, row.after, row.gain, *([row.difference] if against else []), str(row.verdict or "")]
        for row in comparison_rows(comparison)
    ]
    header = ("metric", "cell", "before", "after", "gain", *against, "verdict")
    return markdown_table(header, lines, texts=(0, 1, len(header) - 1))


def difference_header(comparison: Comparison) -> list[str]:
    """Header of the column of differences; empty where no cell has one."""
    return [f"minus {comparison.baseline.label}"] if comparison.baseline and len(comparison.cells) > 1 else []


def console() -> Console:
    """Standard output, at least `PIPED_COLUMNS` wide where it is not a terminal."""
    out = PlainConsole()
    return out if out.is_terminal else PlainConsole(width=max(out.width, PIPED_COLUMNS))


def show(study: Study, out: Console) -> bool:
    """Print the comparison of each group with measurements, below the question of the study; False where there is none.

    Raises ValueError when the samples of a run cannot be read, or a cell has two runs of one seed.
    """
    comparisons = compare_all(study)
    if comparisons:
        print_header(header(study, comparisons), out)
    print_comparisons(comparisons, out)
    return bool(comparisons)


def print_header(about: Header, out: Console) -> None:
    """Print question, prediction and facts of a report."""
    out.print(Text(f"\n{about.question}", style="bold"))
    if about.prediction:
        out.print(Text(f"Prediction: {about.prediction}"))
    out.print(Text("; ".join(f"{term} {text}" for term, text in about.facts), style="dim"))


def print_comparisons(comparisons: Sequence[Comparison], out: Console) -> None:
    """Print each comparison: its title, its table, how to read it, and its findings."""
    for comparison in comparisons:
        out.print(Text(f"\n{comparison.title}: accuracy in % [95 % interval]", style="bold"))
        out.print(fitting(_tables(comparison), out))
        out.print()
        for line in lines(comparison):
            out.print(line)


def fitting(tables: Iterable[Table], out: Console) -> Table:
    """The first of these tables that fits `out`, else the last."""
    tables = list(tables)
    unbounded = out.options.update(width=UNBOUNDED)
    return next((table for table in tables if Measurement.get(out, unbounded, table).maximum <= out.width), tables[-1])


def lines(comparison: Comparison) -> Iterator[Text]:
    """The text below a table: how to read it, and the findings where cells are few. With many, each row has its verdict."""
    yield Text(note(comparison), style="dim")
    if len(comparison.cells) <= MAX_WIDE:
        yield from (Text(finding.sentence) for finding in findings(comparison))


def note(comparison: Comparison) -> str:
    """Test samples, seeds, intervals and definitions of a table."""
    seeds = sorted({cell.num_seeds for cell in comparison.cells})
    many = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    over = "over puzzles (one seed cannot show how seeds vary)" if seeds == [1] else "over puzzles and seeds"
    text = (
        f"Test split, {sample_count(comparison.num_samples)}, seeds in a cell: {many}; 95 % intervals {over}. "
        f"{ASYMMETRY.capitalize()} is the gain of a_r minus the gain of a_p, paired by sample."
    )
    if not comparison.metrics.keys().isdisjoint(CONTRIBUTIONS):
        text += f" {CONTRIBUTE}"
    if comparison.baseline is None:
        return f"{text} No cell has balance=none, so there are no differences to it."
    if len(comparison.cells) > 1:
        text += " Differences are those after training, paired by seed and sample."
    others = [cell for cell in comparison.cells if not cell.is_baseline]
    if unpaired := [cell.label for cell in others if not any(one.difference.n for one in cell.changes.values())]:
        text += f" Without one: {', '.join(unpaired)}; no seed was evaluated on the samples of {comparison.baseline.label} at that seed."
    return text


def _tables(comparison: Comparison) -> Iterator[Table]:
    """Widest first: cells beside each other, a row for each cell, the same with stacked intervals."""
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
    for metric, name in comparison.metrics.items():
        row = [Text(name), stacked(_level(metric, cells[0].changes[metric].before))]
        for cell in cells:
            row += [stacked(_level(metric, cell.changes[metric].after)), stacked(points(cell.changes[metric].gain))]
        for cell in others:
            change = cell.changes[metric]
            row += [stacked(points(change.difference)), _verdict(change.verdict, _sign(change.difference, change.verdict), BROKEN)]
        table.add_row(*row)
    row = [Text(ASYMMETRY), EMPTY]
    for cell in cells:
        found = cell.asymmetry_verdict
        parts = [stacked(points(cell.asymmetry)), _verdict(found, _sign(cell.asymmetry, found), BROKEN)]
        row += [EMPTY, Text("\n").join(part for part in parts if part)]
    table.add_row(*row)
    return table


def _below(comparison: Comparison, *, break_verdicts: bool, stack: bool = False) -> Table:
    """A row for each cell, below the name of the metric."""
    against, phrases = difference_header(comparison), BROKEN if break_verdicts else WHOLE
    number = stacked if stack else Text
    table = _table("before", "after", "gain", *against)
    table.add_column("verdict", no_wrap=True)
    metric = None
    for row in comparison_rows(comparison):
        if row.metric != metric:
            metric = row.metric
            table.add_row(Text(metric, style="bold"))
        numbers = map(number, (row.before, row.after, row.gain, *([row.difference] if against else [])))
        table.add_row(Text(f"  {row.cell}"), *numbers, _verdict(row.verdict, row.sign, phrases))
    return table


def _table(*numbers: str, gap: int = 1) -> Table:
    """A table with an unnamed first column and these right-aligned ones."""
    table = Table(box=SIMPLE_HEAD, padding=(0, gap), collapse_padding=True, pad_edge=False, show_edge=False)
    table.add_column("", overflow="fold")
    for title in numbers:
        table.add_column(Text(title), justify="right", no_wrap=True)
    return table


def _level(metric: str, accuracy: Estimate) -> str:
    """An accuracy in percent; empty for a contribution to a change, which has none."""
    return "" if metric in CONTRIBUTIONS else percent(accuracy)


def _has_one_start(comparison: Comparison) -> bool:
    """Whether all cells start from the same model, so that one column holds their accuracy before training."""
    starts = {tuple(percent(cell.changes[metric].before) for metric in comparison.metrics) for cell in comparison.cells}
    return len(starts) == 1


def stacked(number: str) -> Text:
    """The interval below its number."""
    return Text(number.replace(" ", "\n", 1))


def _sign(estimate: Estimate, verdict: Verdict | None) -> int:
    return 0 if verdict in (None, Verdict.unresolved) else 1 if estimate.mean > 0 else -1


def _verdict(verdict: Verdict | None, sign: int, phrases: dict[Verdict, str]) -> Text:
    """Green above 0, red below it, uncoloured where the interval contains 0."""
    return EMPTY if verdict is None else Text(phrases[verdict], style=COLOURS[sign])
