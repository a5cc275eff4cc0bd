"""Pictures of the gallery as SVG: the sample's own with wrong cells marked on it, and a graph's edges drawn apart.

A picture stands in the page once, however many cells of a study answered it; cards refer to it by its id.
"""

from __future__ import annotations

import io
import math
from base64 import b64decode, b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from percasym.report.marks import GraphMarks, GridMarks

SIDE = 100
"""Longer side of every picture, in the units of its SVG."""
MAX_PIXELS_A_SIDE = 512
"""Of a picture in a page: twice what a card shows; a photograph of 12 megapixels would weigh as much as all else."""
QUALITY = 85
"""Of the JPEG that a larger picture becomes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A picture of the gallery."""

    name: str
    uri: str
    width: float
    height: float
    """In units of the SVG; the longer one is `SIDE`."""
    is_small: bool
    """Whether it is shown enlarged, so that its pixels stay pixels."""


def kept(name: str, data: str) -> Kept:
    """The picture of a record (`data` is base64 of a PNG) in its own proportions; a large one becomes a JPEG of a page's size."""
    width, height = (int.from_bytes(b64decode(data[:32])[at : at + 4], "big") for at in (16, 20))  # The first chunk of a PNG says so.
    longer = max(width, height)
    small = longer <= MAX_PIXELS_A_SIDE
    uri = f"data:image/png;base64,{data}" if small else _shrunk(data)
    return Kept(name=name, uri=uri, width=SIDE * width / longer, height=SIDE * height / longer, is_small=small)


def shelf(pictures: Iterable[Kept]) -> str:
    """The pictures that `picture` refers to."""
    images = "".join(
        f'<image id="{escape(one.name)}" href="{escape(one.uri)}" width="{one.width:.6g}" height="{one.height:.6g}"/>' for one in pictures
    )
    return f'<svg width="0" height="0" aria-hidden="true" class="shelf"><defs>{images}</defs></svg>'


def picture(one: Kept, label: str, found: GridMarks | GraphMarks | None) -> str:
    """The picture; each wrong cell has a frame and, in a corner, what was stated in its place."""
    marked = "".join(_cell(found, *place) for place in _places(found)) if isinstance(found, GridMarks) else ""
    look = "picture pixels" if one.is_small else "picture"
    head = f'<svg class="{look}" viewBox="0 0 {one.width:.6g} {one.height:.6g}" role="img" aria-label="{escape(label)}">'
    return f'{head}<use href="#{escape(one.name)}"/>{marked}</svg>'


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


def _shrunk(data: str) -> str:
    from PIL import Image  # Only where somebody's pictures are large.

    with Image.open(io.BytesIO(b64decode(data)), formats=("PNG",)) as image:
        small = image.convert("RGB")
    small.thumbnail((MAX_PIXELS_A_SIDE, MAX_PIXELS_A_SIDE))
    out = io.BytesIO()
    small.save(out, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{b64encode(out.getvalue()).decode('ascii')}"


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
