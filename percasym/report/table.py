"""What a run changed in seeing and what in thinking: as a table for the terminal and for a README."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from percasym.report.load import METRICS, RunRecord, Summary, read_summary
from percasym.types import Estimate

README_COLUMNS: Mapping[str, str] = {"end_to_end": "a", "perception": "a_p", "reasoning": "a_r"}
"""The three headline metrics and their column titles."""


def table(summary: Mapping[str, Any] | Summary) -> Table:
    """Before, after and gain of every metric in percent with 95 % intervals; below it, shares and seconds.

    Fits 80 columns. A gain whose interval excludes zero is green or red.
    """
    known = summary if isinstance(summary, Summary) else read_summary(summary)
    title, caption = "accuracy in % [95 % interval]", _caption(known)
    shown = Table(box=SIMPLE_HEAD, title=title, title_justify="left", caption=caption, caption_justify="left")
    shown.add_column("", no_wrap=True)
    for column in ("before", "after", "gain", "n"):
        shown.add_column(column, justify="right", no_wrap=True)
    for key, name in METRICS.items():
        before, after, gain = (part.get(key) for part in (known.before, known.after, known.gain))
        if (latest := after or before) is not None:
            gained = Text(percent(gain, signed=True), style=_verdict(gain))
            shown.add_row(name, percent(before), percent(after), gained, str(latest.n))
    return shown


def markdown(runs: Iterable[RunRecord]) -> str:
    """One row for each cell of a study: the three metrics before and after, averaged over its seeds.

    The interval is that of one run, averaged over the seeds: seeds share their test samples, so more
    seeds do not make the test set larger. Runs that are not finished are left out and counted below.
    """
    everything = list(runs)
    finished = [run for run in everything if run.summary is not None]
    header = ["cell", "seeds", *(f"{title} {when}" for title in README_COLUMNS.values() for when in ("before", "after", "gain"))]
    rows = [header, ["---", *["---:"] * (len(header) - 1)]]
    for cell in dict.fromkeys(run.cell for run in finished):
        rows.append(_row(cell, [run.summary for run in finished if run.cell == cell and run.summary is not None]))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    if unfinished := len(everything) - len(finished):
        lines += ["", f"{unfinished} of {len(everything)} runs not finished and not shown."]
    return "\n".join(lines) + "\n"


def percent(estimate: Estimate | None, *, signed: bool = False) -> str:
    """An estimate in percent with its interval; a dash when nothing was measured.

    >>> percent(Estimate(mean=0.382, ci95=(0.31, 0.452), n=200))
    '38.2 [31, 45]'
    >>> percent(Estimate(mean=0.34, ci95=(-0.021, 0.409), n=200), signed=True)
    '+34.0 [-2, +41]'
    """
    if estimate is None or math.isnan(estimate.mean):
        return "-"
    sign = "+z" if signed else "z"  # z: no minus before a zero.
    low, high = (f"{100 * end:{sign}.0f}" for end in estimate.ci95)
    return f"{100 * estimate.mean:{sign}.1f} [{low}, {high}]"


def _row(cell: str, summaries: Sequence[Summary]) -> list[str]:
    values = [
        percent(_average([part[key] for summary in summaries if key in (part := getattr(summary, when))]), signed=when == "gain")
        for key in README_COLUMNS
        for when in ("before", "after", "gain")
    ]
    return [cell, str(len(summaries)), *values]


def _average(estimates: Sequence[Estimate]) -> Estimate | None:
    if not estimates:
        return None
    low, high = (fmean(estimate.ci95[end] for estimate in estimates) for end in (0, 1))
    return Estimate(mean=fmean(estimate.mean for estimate in estimates), ci95=(low, high), n=min(estimate.n for estimate in estimates))


def _verdict(gain: Estimate | None) -> str:
    if gain is None or math.isnan(gain.mean) or gain.ci95[0] <= 0 <= gain.ci95[1]:
        return ""
    return "green" if gain.mean > 0 else "red"


def _caption(summary: Summary) -> str:
    lines = []
    num_samples = max((estimate.n for estimate in summary.after.values()), default=0)
    if summary.num_puzzles is not None and summary.num_puzzles < num_samples:
        lines.append(f"{num_samples} samples of {summary.num_puzzles} puzzles: the intervals allow for what the samples of one share.")
    if summary.share:
        parts = ", ".join(f"{_share(value)} of the {key}" for key, value in summary.share.items())
        lines.append(f"In ordinary training perception is {parts} (first step).")
    if summary.seconds:
        parts = ", ".join(f"{key} {value:.0f}" for key, value in summary.seconds.items())
        lines.append(f"Seconds: {parts}.")
    return "\n".join(lines)


def _share(value: float) -> str:
    return "? %" if math.isnan(value) else f"{100 * value:.1f} %"
