"""Pictures of the gallery as SVG: the sample's own with wrong cells marked on it, and a graph's edges drawn apart.

A picture stands in the page once, however many cells of a study answered it; cards refer to it by its id.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from percasym.report.marks import GraphMarks, GridMarks

SIDE = 100
"""Of every picture, in the units of its SVG."""


def shelf(pictures: Iterable[tuple[str, str]]) -> str:
    """The pictures (id, base64 of a PNG) that `picture` refers to."""
    images = "".join(
        f'<image id="{escape(name)}" href="data:image/png;base64,{escape(data)}" width="{SIDE}" height="{SIDE}"/>'
        for name, data in pictures
    )
    return f'<svg width="0" height="0" aria-hidden="true" class="shelf"><defs>{images}</defs></svg>'


def picture(name: str, label: str, found: GridMarks | GraphMarks | None) -> str:
    """The picture called `name`; each wrong cell has a frame and, in a corner, what was stated in its place."""
    marked = "".join(_cell(found, *place) for place in _places(found)) if isinstance(found, GridMarks) else ""
    head = f'<svg class="picture" viewBox="0 0 {SIDE} {SIDE}" role="img" aria-label="{escape(label)}">'
    return f'{head}<use href="#{escape(name)}"/>{marked}</svg>'


def graph(found: GraphMarks) -> str:
    """Both edge sets on a circle of letters: right, missing (dashed) and invented (thick)."""
    count, radius = len(found.nodes), SIDE / 2 - 10
    turn = [2 * math.pi * i / count for i in range(count)]
    at = {node: (SIDE / 2 + radius * math.sin(a), SIDE / 2 - radius * math.cos(a)) for node, a in zip(found.nodes, turn, strict=True)}
    lines = "".join(
        _line(kind, at[edge[0]], at[edge[1]])
        for kind, edges in (("right", found.right), ("missing", found.missing), ("invented", found.invented))
        for edge in edges
    )
    nodes = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7"/><text x="{x:.1f}" y="{y:.1f}">{node}</text>' for node, (x, y) in at.items())
    said = f"{len(found.missing)} edges missing, {len(found.invented)} invented"
    return f'<svg class="graph" viewBox="0 0 {SIDE} {SIDE}" role="img" aria-label="{said}">{lines}{nodes}</svg>'


def _line(kind: str, start: tuple[float, float], end: tuple[float, float]) -> str:
    return f'<line class="{kind}" x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>'


def _places(found: GridMarks) -> list[tuple[int, int, str]]:
    return [(cell.row, cell.column, cell.stated) for cell in found.wrong]


def _cell(found: GridMarks, row: int, column: int, stated: str) -> str:
    side = SIDE / found.size
    x, y, inset, tag = column * side, row * side, side * 0.05, side * 0.46
    frame = f'<rect class="frame" x="{x + inset:.2f}" y="{y + inset:.2f}" width="{side - 2 * inset:.2f}" height="{side - 2 * inset:.2f}"/>'
    corner_x, corner_y = x + side - inset - tag, y + side - inset - tag
    plate = f'<rect class="plate" x="{corner_x:.2f}" y="{corner_y:.2f}" width="{tag:.2f}" height="{tag:.2f}"/>'
    shown = "·" if stated == "0" else escape(stated)
    text = f'<text class="said" x="{corner_x + tag / 2:.2f}" y="{corner_y + tag / 2:.2f}" font-size="{tag * 0.9:.2f}">{shown}</text>'
    return frame + plate + text
