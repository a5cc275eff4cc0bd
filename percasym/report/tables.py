"""Tables of accuracies: one run for the terminal, the cells of a study for Markdown, the page and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from percasym.config.escaping import csv_cell, markdown
from percasym.report.load import CONTRIBUTIONS, HEADLINE, METRICS, SAMPLED, RunRecord, Summary, read_summary
from percasym.report.study import PARTS, CellGroup, Study, seed_of, study_of
from percasym.report.words import CONTRIBUTE, counted, percent
from percasym.types import Estimate

GROUP_HEADER = ("cell", "seeds", *(f"{title}{more}" for title in HEADLINE.values() for more in ("", " against none")))
CELLS_CSV = (
    "group", "cell", "strategy", "weight", "metric", "seeds", "n", "mean", "low", "high", "difference", "difference_low", "difference_high",
    "before", "before_low", "before_high", "gain", "gain_low", "gain_high",
)  # fmt: skip

SPLIT = {"sampling": "rollout", "rewards": "reward", "update": "update"}
"""Parts of a round in words, and their keys in the summary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One cell in the three headline metrics."""

    cell: str
    seeds: int
    texts: tuple[str, ...]
    """Value and difference of each metric, in percent."""


def run_table(summary: Mapping[str, Any] | Summary) -> Table:
    """Before, after and gain of every metric in percent with 95 % intervals; below it, shares and seconds.

    Fits 80 columns. A gain whose interval excludes zero is green or red.
    """
    known = summary if isinstance(summary, Summary) else read_summary(summary)
    title, caption = "accuracy in % [95 % interval]", _caption(known)
    shown = Table(
        box=SIMPLE_HEAD, title=title, title_justify="left", caption=caption, caption_justify="left", pad_edge=False, collapse_padding=True
    )
    shown.add_column("", no_wrap=True)
    for column in ("before", "after", "gain", "n"):
        shown.add_column(column, justify="right", no_wrap=True)
    for key, name in {**METRICS, **SAMPLED}.items():
        before, after, gain = (part.get(key) for part in (known.before, known.after, known.gain))
        if (latest := after or before) is not None:
            gained = Text(percent(gain, signed=True), style=_gain_style(gain))
            shown.add_row(name, percent(before), percent(after), gained, str(latest.n))
        if key == "end_to_end":
            for part, its_name in CONTRIBUTIONS.items():
                if (one := known.gain.get(part)) is not None and one.n:
                    shown.add_row(f"  {its_name}", "", "", Text(percent(one, signed=True), style=_gain_style(one)), str(one.n))
    return shown


def runs_markdown(runs: Iterable[RunRecord]) -> str:
    """One row for each cell of a study: the three headline metrics before and after, averaged over its seeds.

    Intervals are those of every report. Runs that are not finished are left out and counted below.
    """
    everything = list(runs)
    header = ["cell", "seeds", *(f"{title} {when}" for title in HEADLINE.values() for when in PARTS)]
    study = study_of(everything, "")
    names = list(dict.fromkeys(run.cell for run in everything))
    cells = sorted((cell for group in study.groups for cell in group.cells), key=lambda cell: names.index(cell.name))
    rows = [
        [cell.name, str(len(cell.runs)), *(percent(cell.estimate(key, part), signed=part == "gain") for key in HEADLINE for part in PARTS)]
        for cell in cells
    ]
    text = markdown_table(header, rows)
    if study.num_unfinished:
        text += f"\n{study.num_unfinished} of {counted(len(everything), 'run')} not finished and not shown.\n"
    return text


def group_rows(group: CellGroup) -> list[TableRow]:
    """The table of a group, its baseline first."""
    columns = [column for metric in HEADLINE for column in (_percents(group.estimates(metric)), _percents(group.differences(metric), True))]
    return [
        TableRow(cell=cell.name, seeds=len(cell.runs), texts=texts)
        for cell, *texts_of in zip(group.cells, *columns, strict=True)
        if (texts := tuple(texts_of))
    ]


def group_note(group: CellGroup) -> str:
    """Describe the intervals and differences in the table of a group."""
    over = "puzzles and seeds" if any(len(cell.runs) > 1 for cell in group.cells) else "puzzles, for no cell has two finished seeds"
    baseline = group.baseline
    against = (
        f"Differences are to {baseline.name}, paired by seed and sample (a dash: nothing to pair)."
        if baseline
        else "There is no cell with balance=none, so there are no differences."
    )
    return f"Percent of the test split with 95 % intervals over {over}. {against}"


def group_markdown(group: CellGroup) -> str:
    """The table of a group for a README."""
    return markdown_table(GROUP_HEADER, [[row.cell, str(row.seeds), *row.texts] for row in group_rows(group)])


def cells_csv(study: Study) -> str:
    """One row for each metric of each cell, and one for its asymmetry (in `mean`); an empty field where nothing was measured."""
    return _csv(CELLS_CSV, (row for group in study.groups for row in _cell_rows(group)))


def runs_csv(study: Study) -> str:
    """One row for each run: its status and its metrics after training."""
    lines = []
    for run in study.runs:
        after = {} if run.summary is None else run.summary.after
        means = [_plain(after[key].mean) if key in after else "" for key in METRICS]
        lines.append([run.cell, str(seed_of(run)), str(run.meta["status"]), *means])
    return _csv(("cell", "seed", "status", *METRICS), lines)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], *, texts: Iterable[int] = (0,)) -> str:
    """A Markdown table; the columns at the places `texts` are left-aligned, all others right-aligned.

    >>> print(markdown_table(("cell", "a"), [("none", "38.2")]), end="")
    | cell | a |
    | --- | ---: |
    | none | 38.2 |
    """
    left = set(texts)
    shown = [[markdown(text) for text in line] for line in (header, *rows)]
    lines = [shown[0], ["---" if place in left else "---:" for place in range(len(header))], *shown[1:]]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _gain_style(gain: Estimate | None) -> str:
    if gain is None or math.isnan(gain.mean) or gain.ci95[0] <= 0 <= gain.ci95[1]:
        return ""
    return "green" if gain.mean > 0 else "red"


def _caption(summary: Summary) -> str:
    lines = []
    num_samples = max((estimate.n for estimate in summary.after.values()), default=0)
    if summary.num_puzzles is not None and summary.num_puzzles < num_samples:
        puzzles = counted(summary.num_puzzles, "puzzle")
        lines.append(f"{num_samples} samples of {puzzles}: the intervals allow for what the samples of one share.")
    if any(key in summary.gain and summary.gain[key].n for key in CONTRIBUTIONS):
        lines.append(CONTRIBUTE)
    if summary.share:
        parts = ", ".join(f"{_share(value)} of the {key}" for key, value in summary.share.items())
        lines.append(f"In ordinary training perception is {parts} (first step).")
    if summary.rounds:
        lines += _rounds(summary.rounds)
    if summary.seconds:
        parts = ", ".join(f"{key} {value:.0f}" for key, value in summary.seconds.items())
        lines.append(f"Seconds: {parts}.")
    return "\n".join(lines)


def _rounds(rounds: Mapping[str, float]) -> list[str]:
    """What the groups of RL taught, and where its seconds went."""
    groups, taught = rounds.get("groups", math.nan), rounds.get("taught", math.nan)
    lines = []
    if taught == 0:
        lines.append(
            f"No group taught anything: in all {groups:.0f} groups every rollout earned the same, so nothing had an advantage. Sample "
            "larger groups or hotter, train on another reward, or start from another model."
        )
    elif groups > 0:
        lines.append(f"{taught:.0f} of {groups:.0f} groups ({taught / groups:.0%}) taught: their rollouts earned differently.")
    seconds = {name: rounds.get(f"{key}_seconds", math.nan) for name, key in SPLIT.items()}
    if (whole := sum(seconds.values())) > 0:
        parts = ", ".join(f"{name} {value:.0f} ({value / whole:.0%})" for name, value in seconds.items())
        lines.append(f"Seconds of the rounds: {parts}.")
    return lines


def _share(value: float) -> str:
    return "? %" if math.isnan(value) else f"{100 * value:.1f} %"


def _cell_rows(group: CellGroup) -> Iterator[list[str]]:
    sampled = {key for cell in group.cells for run in cell.runs if run.summary for key in run.summary.after if key in SAMPLED}
    shown = group.headline
    for metric in (*METRICS, *(key for key in CONTRIBUTIONS if key in shown), *(key for key in SAMPLED if key in sampled)):
        parts = [group.estimates(metric), group.differences(metric), group.estimates(metric, "before"), group.estimates(metric, "gain")]
        for cell, *found in zip(group.cells, *parts, strict=True):
            numbers = [_plain(end) for one in found for end in (one.mean, *one.ci95)]
            sizes = [str(len(cell.runs)), str(max(one.n for one in found))]
            yield [group.title, cell.name, cell.strategy, _plain(cell.weights[0]), metric, *sizes, *numbers]
    for cell in group.cells:
        gap = [_plain(end) for end in (cell.asymmetry.mean, *cell.asymmetry.ci95)]
        sizes = [str(len(cell.runs)), str(cell.asymmetry.n)]
        yield [group.title, cell.name, cell.strategy, _plain(cell.weights[0]), "asymmetry", *sizes, *gap, *[""] * 9]


def _csv(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([csv_cell(text) for text in line] for line in lines)
    return out.getvalue()


def _plain(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def _percents(estimates: Sequence[Estimate], signed: bool = False) -> list[str]:
    return [percent(estimate, signed=signed) for estimate in estimates]
