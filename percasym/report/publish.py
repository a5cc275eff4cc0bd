"""A study on the disk: report.html for everyone, report.md with its figures for a repository, CSV for whoever counts again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from percasym.report import reward_table, study_table
from percasym.report.figures import Drawing, Figured, figures
from percasym.report.load import RunRecord
from percasym.report.page import absent, page, summary
from percasym.report.rewards import rewarded
from percasym.report.study import Study, study_name, study_of
from percasym.runs.records import write_whole

FIRST = ("learning", "gap")
"""Figures that show the asymmetry, the one to look at first in front."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Where a report lies and what it lacks."""

    page: Path
    figure: Path | None
    """The first of `FIRST` that could be drawn."""
    left_out: tuple[str, ...]
    """A sentence for each figure that the runs could not fill."""


def publish(runs: Sequence[RunRecord], out: Path) -> Published:
    """Write the report of these runs into the folder `out`: report.html, report.md, *.png, *.svg, cells.csv, runs.csv."""
    out.mkdir(parents=True, exist_ok=True)
    study = study_of(runs, study_name(runs, out.absolute().parent))
    drawn, left_out = figures(study.groups, out)
    write_whole(out / "report.html", page(study, drawn, left_out))
    write_whole(out / "report.md", _markdown(study, drawn, left_out))
    write_whole(out / "cells.csv", study_table.cells_csv(study))
    write_whole(out / "runs.csv", study_table.runs_csv(study))
    pictures = {one.drawing.name: one.png for one in drawn}
    first = next((pictures[name] for name in FIRST if name in pictures), None)
    return Published(page=out / "report.html", figure=first, left_out=tuple(map(absent, left_out)))


def _markdown(study: Study, drawn: Sequence[Figured], left_out: Sequence[Drawing]) -> str:
    parts = [f"# {study.name}", summary(study)]
    for one in drawn:
        parts += [f"## {one.drawing.title}", f"![{one.drawing.title}]({one.png.name})", one.drawing.caption]
    for group in study.groups:
        parts += [f"## Numbers: {group.title}", study_table.note(group), study_table.markdown(group).rstrip()]
    if (rewards := rewarded(study.groups)) is not None:
        parts += ["## Numbers: rewards", f"{rewards.source}:", reward_table.markdown(rewards.found).rstrip()]
    if left_out:
        parts += ["## Left out", "\n".join(f"- {sentence}" for sentence in map(absent, left_out))]
    return "\n\n".join(parts) + "\n"
