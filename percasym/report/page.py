"""report.html: one file with every figure, table and sample of a study, which opens with no network and no server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

from percasym.report import reward_table, study_table
from percasym.report.cards import gallery
from percasym.report.curves import FAINT, INK, PERCEPTION, REASONING, WEIGHT
from percasym.report.figures import Drawing, Figured
from percasym.report.page_look import SCRIPT, STYLE
from percasym.report.rewards import rewarded
from percasym.report.study import Study
from percasym.report.style import SOFT

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<h1>{title}</h1>
<p>{summary}</p>
<nav aria-label="sections">{links}</nav>
<main>
{sections}
</main>
<script>{script}</script>
</body>
</html>
"""

GALLERY = (
    "The first test samples, as the first seed of a cell answered them after training. What departs from p* is marked in the stated "
    "percept, and on the picture where that is a grid: an orange frame is a cell that was read as something else, its corner says as what "
    "(a dot: as empty). Reasoning is judged by the percept that was stated; in collected data, where nobody knows what follows from a "
    "wrong one, by the answer to p*."
)
LEGIBLE, LARGEST = 0.8, 1.5
"""Least and most pixels for a point of a figure: its 11-point letters are 9 to 16 pixels high; a narrower page scrolls the figure."""
PAPER: Mapping[str, str] = {
    "#000000": "currentColor",
    INK: "currentColor",
    SOFT: "var(--soft)",
    "#444444": "var(--soft)",
    "#888888": "var(--soft)",
    FAINT: "var(--line)",
    "#ffffff": "var(--paper)",
    PERCEPTION: "var(--blue)",
    REASONING: "var(--red)",
    WEIGHT: "var(--green)",
}
"""Colours of a figure that follow the page from light to dark."""


def page(study: Study, drawn: Sequence[Figured], left_out: Sequence[Drawing]) -> str:
    """The whole page."""
    sections = [
        *((one.drawing.name, one.drawing.title, _plot(one)) for one in drawn),
        *((f"table-{i}", f"Numbers: {group.title}", _table(study, i)) for i, group in enumerate(study.groups)),
    ]
    if (rewards := rewarded(study.groups)) is not None:
        note = f"<p>{escape(rewards.source)}: {escape(reward_table.title(rewards.found))}.</p>"
        sections.append(("reward-table", "Numbers: rewards", f"{note}\n{reward_table.html(rewards.found)}"))
    if cards := gallery(study.groups):
        sections.append(("gallery", "Seeing errors and thinking errors", f"<p>{GALLERY}</p>\n{cards}"))
    if left_out:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in map(absent, left_out))
        sections.append(("absent", "Left out", f"<ul>{items}</ul>"))
    return PAGE.format(
        title=escape(study.name),
        summary=re.sub("`(.+?)`", r"<code>\1</code>", escape(summary(study))),
        style=STYLE,
        script=SCRIPT,
        links=" ".join(f'<a href="#{name}">{escape(title)}</a>' for name, title, _ in sections),
        sections="\n".join(f'<section id="{name}">\n<h2>{escape(title)}</h2>\n{content}\n</section>' for name, title, content in sections),
    )


def summary(study: Study) -> str:
    """What the report rests on, in a sentence or two."""
    cells, left = sum(len(group.cells) for group in study.groups), study.num_unfinished
    rest = f" Not finished, and not shown: {left} (`percasym status` says why)." if left else ""
    return f"Runs finished: {len(study.runs) - left}, in cells: {cells}.{rest}"


def absent(drawing: Drawing) -> str:
    """Why a figure is not there."""
    return f"{drawing.title}: {drawing.missing}."


def _plot(one: Figured) -> str:
    title = escape(one.drawing.title)
    svg = inlined(one.svg.read_text(encoding="utf-8"), one.drawing.name, title)
    return (
        f'<figure class="plot"><div class="scroll" tabindex="0" role="region" aria-label="{title}">{svg}</div>'
        f"<figcaption>{escape(one.drawing.caption)}</figcaption></figure>"
    )


def _table(study: Study, place: int) -> str:
    group = study.groups[place]
    return f"<p>{escape(study_table.note(group))}</p>\n{study_table.html(group)}"


def inlined(svg: str, name: str, title: str) -> str:
    """An SVG file of matplotlib's as a part of the page: ids of its own, the page's colours, the page's width.

    >>> inlined('<?xml?><svg width="9pt" viewBox="0 0 9 9" xmlns="http://w3"><g id="a" fill="#222222"/></svg>', "x", "t")
    '<svg viewBox="0 0 9 9" style="min-width: 7px; max-width: 14px" role="img" aria-label="t"><g id="x-a" fill="currentColor"/></svg>'
    """
    found = re.search(r"<svg.*</svg>", svg, flags=re.DOTALL)
    assert found, f"{name} is no SVG: {svg[:80]!r}"
    inner = re.sub(r"<metadata>.*?</metadata>", "", found[0], flags=re.DOTALL)
    head, rest = inner.split(">", 1)
    box = re.search(r'viewBox="\S+ \S+ (\S+) \S+"', head)
    assert box, f"{name} has no viewBox: {head!r}"
    own = re.sub(r'(\bid="|\bhref="#|url\(#)', rf"\g<1>{name}-", rest.replace("xlink:href", "href"))
    for colour, variable in PAPER.items():
        own = own.replace(colour.lower(), variable)
    least, most = (pixels * float(box[1]) for pixels in (LEGIBLE, LARGEST))
    return f'<svg {box[0]} style="min-width: {least:.0f}px; max-width: {most:.0f}px" role="img" aria-label="{title}">{own}'
