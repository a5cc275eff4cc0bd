"""The console on which every command prints: texts of others are neither markup nor control sequences."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from percasym.config.escaping import visible


class PlainConsole(Console):
    """A rich console without markup and highlighting that shows control characters instead of sending them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"highlight": False, "markup": False, "emoji": False} | options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable; rich writes its own sequences later, from their styles."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), style, control)
