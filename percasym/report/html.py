"""Render the templates of templates/ into self-contained HTML: styles, scripts and figures are inlined, everything else is escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from percasym.report.style import FAINT, GREY, INK, PERCEPTION, REASONING, SOFT, WEIGHT

LEGIBLE, LARGEST = 0.8, 1.5
"""Minimum and maximum of pixels for a point of a figure: 11-point letters are 9 to 16 pixels high; a narrower page scrolls the figure."""
COLOURS: Mapping[str, str] = {
    "#000000": "currentColor",
    INK: "currentColor",
    SOFT: "var(--soft)",
    "#444444": "var(--soft)",
    GREY: "var(--soft)",
    FAINT: "var(--line)",
    "#ffffff": "var(--paper)",
    PERCEPTION: "var(--blue)",
    REASONING: "var(--red)",
    WEIGHT: "var(--green)",
}
"""Colours of a figure -> colours of the page, which differ between light and dark."""


def render(template: str, **values: Any) -> str:
    """The text of a template. A value that the template uses and `values` lacks raises jinja2.UndefinedError."""
    return _environment().get_template(template).render(values)


def inlined(svg: str, name: str, title: str) -> Markup:
    """An SVG file of matplotlib as a part of the page: ids that begin with `name`, the page's colours, the page's width.

    >>> str(inlined('<?xml?><svg width="9pt" viewBox="0 0 9 9" xmlns="http://w3"><g id="a" fill="#222222"/></svg>', "x", "t"))
    '<svg viewBox="0 0 9 9" style="min-width: 7px; max-width: 14px" role="img" aria-label="t"><g id="x-a" fill="currentColor"/></svg>'
    """
    found = re.search(r"<svg.*</svg>", svg, flags=re.DOTALL)
    assert found, f"{name} is no SVG: {svg[:80]!r}"
    inner = re.sub(r"<metadata>.*?</metadata>", "", found[0], flags=re.DOTALL)
    head, rest = inner.split(">", 1)
    box = re.search(r'viewBox="\S+ \S+ (\S+) \S+"', head)
    assert box, f"{name} has no viewBox: {head!r}"
    own = re.sub(r'(\bid="|\bhref="#|url\(#)', rf"\g<1>{name}-", rest.replace("xlink:href", "href"))
    for colour, variable in COLOURS.items():
        own = own.replace(colour.lower(), variable)
    least, most = (pixels * float(box[1]) for pixels in (LEGIBLE, LARGEST))
    style = f"min-width: {least:.0f}px; max-width: {most:.0f}px"
    return Markup(f'<svg {box[0]} style="{style}" role="img" aria-label="{escape(title)}">{own}')


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("percasym.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
