"""The page of `percasym gallery`: samples with picture, p*, question, and the demonstration in its two spans.

One HTML file without scripts or network access; the text of a sample is escaped, so a user's own data can be shown too.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from percasym.report.html import render
from percasym.types import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Samples of one difficulty."""

    title: str
    note: str
    samples: Sequence[Sample]


def gallery(title: str, sections: Iterable[Section]) -> str:
    """One self-contained HTML page."""
    return render("gallery.html.j2", title=title, sections=sections, base64=lambda data: b64encode(data).decode("ascii"))
