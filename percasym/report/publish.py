"""Write the report of a study: report.html (one offline file), report.md with its figures, cells.csv and runs.csv."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from percasym.config.escaping import markdown
from percasym.report.cards import CATEGORIES, card_gallery
from percasym.report.comparison import Comparison, Finding, Verdict, compare_all, findings
from percasym.report.comparison_table import MEANINGS, comparison_markdown, comparison_rows, difference_header, note
from percasym.report.figures import DrawnFigure, draw_figures
from percasym.report.header import Header, header
from percasym.report.html import render
from percasym.report.load import RunRecord
from percasym.report.page_figures import CAPTIONS, MAKERS, cell_id, page_panels, reward_panels
from percasym.report.rewards import RecordedRewards, diagnosis_title, page_table, recorded_rewards, rewards_markdown
from percasym.report.study import CellGroup, Study, study_name, study_of
from percasym.report.tables import GROUP_HEADER, cells_csv, group_markdown, group_note, group_rows, runs_csv
from percasym.report.words import counted
from percasym.runs.records import write_whole

FIRST = ("learning", "gap")
"""Figures that show the asymmetry, by preference."""
MAX_FINDINGS = 7
"""Findings that the page shows without a click: those of three cells. Of more, the asymmetry and those in a are shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The files of a report, and what it lacks."""

    header: Header
    page: Path
    figure: Path | None
    """The first of `FIRST` that was drawn."""
    left_out: tuple[str, ...]
    """A sentence for each figure whose data the runs do not have."""
    comparisons: Sequence[Comparison]
    """What the page shows first, for the terminal to show as well."""
    not_compared: str
    """Why there is no comparison; empty where there is one, or nothing to compare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    """What the page and the Markdown show."""

    study: Study
    header: Header
    comparisons: Sequence[Comparison]
    not_compared: str
    figures: Sequence[DrawnFigure]
    rewards: RecordedRewards | None
    left_out: Sequence[str]

    @property
    def summary(self) -> str:
        finished, cells = len(self.study.runs) - self.study.num_unfinished, sum(len(group.cells) for group in self.study.groups)
        return f"{counted(finished, 'finished run')} in {counted(cells, 'cell')}."


def publish(runs: Sequence[RunRecord], out: Path) -> Published:
    """Write the report of these runs into the folder `out`: report.html, report.md, *.png, *.svg, cells.csv, runs.csv."""
    out.mkdir(parents=True, exist_ok=True)
    study = study_of(runs, study_name(runs, out.absolute().parent))
    comparisons, not_compared = _compared(study)
    drawn, missing = draw_figures(study.groups, out)
    left_out = tuple(f"{drawing.title}: {drawing.missing}." for drawing in missing)
    about = header(study, comparisons)
    report = _Report(
        study=study,
        header=about,
        comparisons=comparisons,
        not_compared=not_compared,
        figures=drawn,
        rewards=recorded_rewards(study.groups),
        left_out=left_out,
    )
    write_whole(out / "report.html", _page(report))
    write_whole(out / "report.md", "\n\n".join(_markdown(report)) + "\n")
    write_whole(out / "cells.csv", cells_csv(study))
    write_whole(out / "runs.csv", runs_csv(study))
    pictures = {one.drawing.name: one.png for one in drawn}
    first = next((pictures[name] for name in FIRST if name in pictures), None)
    return Published(
        header=about, page=out / "report.html", figure=first, left_out=left_out, comparisons=comparisons, not_compared=not_compared
    )


def _compared(study: Study) -> tuple[list[Comparison], str]:
    """The comparisons of groups with measurements; or none, and why they cannot be made."""
    try:
        return compare_all(study), ""
    except ValueError as error:
        return [], f"Not compared: {error}"


def _page(report: _Report) -> str:
    gallery, unreadable = None, []
    try:
        gallery = card_gallery(report.study.groups)
    except ValueError as error:
        unreadable = [str(error)]
    groups = report.study.groups
    panels = {one.drawing.name: page_panels(one.drawing.name, groups) for one in report.figures if one.drawing.name in MAKERS}
    if report.rewards is not None:
        panels["rewards"] = reward_panels(report.rewards)
    return render(
        "page.html.j2",
        name=report.study.name,
        header=report.header,
        summary=report.summary,
        num_unfinished=report.study.num_unfinished,
        comparisons=[_comparison_values(one) for one in report.comparisons],
        meanings=MEANINGS,
        not_compared=report.not_compared,
        figures=[_figure_values(one, panels.get(one.drawing.name, [])) for one in report.figures],
        panels={name: found for name, found in panels.items() if found},
        groups=[_group_values(place, group) for place, group in enumerate(groups)],
        rewards=None if report.rewards is None else _reward_values(report.rewards),
        gallery=gallery,
        categories=CATEGORIES,
        left_out=[*report.left_out, *unreadable],
    )


def _comparison_values(comparison: Comparison) -> Mapping[str, Any]:
    found = findings(comparison)
    leading = found if len(found) <= MAX_FINDINGS else [finding for finding in found if finding.leads]
    shown = [_finding_values(finding) for finding in leading]
    return {
        "title": comparison.title,
        "findings": shown,
        "more": [_finding_values(finding) for finding in found if finding not in leading],
        "against": difference_header(comparison),
        "metrics": [(metric, list(rows)) for metric, rows in groupby(comparison_rows(comparison), key=lambda row: row.metric)],
        "note": note(comparison),
    }


def _finding_values(finding: Finding) -> Mapping[str, str]:
    kind = "neutral" if finding.verdict is Verdict.unresolved else "good" if finding.estimate.mean > 0 else "bad"
    statement = finding.statement.replace("n = ", "n\u00a0=\u00a0")
    return {"statement": f"{statement}: {finding.sum}" if finding.sum else statement, "verdict": str(finding.verdict), "kind": kind}


def _figure_values(one: DrawnFigure, panels: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """A figure of the page: its panels by group, and whether they show cells; or the PNG of one that has none."""
    drawing = one.drawing
    placed = [{"place": place, **panel} for place, panel in enumerate(panels)]
    of_groups = [(group, list(own)) for group, own in groupby(placed, key=lambda panel: panel["group"])]
    caption = CAPTIONS.get(drawing.name, drawing.caption) if panels else drawing.caption
    picture = None if panels else f"data:image/png;base64,{b64encode(one.png.read_bytes()).decode('ascii')}"
    cells = drawing.name in MAKERS
    return {"name": drawing.name, "title": drawing.title, "caption": caption, "groups": of_groups, "cells": cells, "picture": picture}


def _group_values(number: int, group: CellGroup) -> Mapping[str, Any]:
    rows = [(row.cell, str(row.seeds), *row.texts) for row in group_rows(group)]
    cells = [{"id": cell_id(number, place), "label": cell.label} for place, cell in enumerate(group.cells)]
    return {"title": group.title, "note": group_note(group), "header": GROUP_HEADER, "rows": rows, "cells": cells}


def _reward_values(rewards: RecordedRewards) -> Mapping[str, Any]:
    header, rows, notes = page_table(rewards.found)
    return {"title": f"{rewards.source}: {diagnosis_title(rewards.found)}.", "header": header, "rows": rows, "notes": notes}


def _markdown(report: _Report) -> Iterator[str]:
    """The paragraphs of report.md."""
    unfinished = report.study.num_unfinished
    yield f"# {markdown(report.header.title)}"
    yield f"**{markdown(report.header.question)}**"
    if report.header.prediction:
        yield f"Prediction, written before the runs: {markdown(report.header.prediction)}"
    yield "\n".join(f"- {term}: {markdown(text)}" for term, text in report.header.facts)
    yield report.summary + (f" Not finished, and not shown: {unfinished} (`percasym status` says why)." if unfinished else "")
    for comparison in report.comparisons:
        yield f"## Comparison: {markdown(comparison.title)}"
        if sentences := [f"- {markdown(finding.sentence)}" for finding in findings(comparison)]:
            yield "\n".join(sentences)
        yield comparison_markdown(comparison).rstrip()
        yield f"Accuracy in % [95 % interval]. {markdown(note(comparison))}"
    if report.not_compared:
        yield f"## Comparison\n\n{markdown(report.not_compared)}"
    for one in report.figures:
        yield f"## {one.drawing.title}"
        yield f"![{one.drawing.title}]({one.png.name})"
        yield one.drawing.caption
    for group in report.study.groups:
        yield f"## Numbers: {markdown(group.title)}"
        yield markdown(group_note(group))
        yield group_markdown(group).rstrip()
    if report.rewards is not None:
        yield "## Numbers: rewards"
        yield f"{markdown(report.rewards.source)}:"
        yield rewards_markdown(report.rewards.found).rstrip()
    if report.left_out:
        yield "## Left out"
        yield "\n".join(f"- {markdown(sentence)}" for sentence in report.left_out)
