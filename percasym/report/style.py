"""What all figures of a study share: a canvas without a window, one style, colours that all kinds of colour vision tell apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from percasym.report.curves import FAINT
from percasym.types import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SOFT = "#555555"
DPI = 150
PANEL_INCHES = (4.6, 3.7)
MAX_COLUMNS = 2
"""Panels beside each other: two of 4.6 inches stay readable on a page of 72 rem."""
TICKS = ([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])


@contextmanager
def canvas(num_panels: int, panel: tuple[float, float] = PANEL_INCHES, columns: int = MAX_COLUMNS) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with this many panels, `panel` inches each, in rows of at most `columns`."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    look: Any = {
        "font.size": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#888888",
        "axes.axisbelow": True,
    }
    across = min(columns, num_panels)
    down = math.ceil(num_panels / across)
    with rc_context(look):
        figure = Figure(figsize=(panel[0] * across, panel[1] * down), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        panels = list(figure.subplots(down, across, squeeze=False).flat)
        for axes in panels[num_panels:]:
            axes.remove()
        yield figure, panels[:num_panels]
        figure.draw_without_rendering()  # Ticks take the style when they are first drawn.
        figure.set_layout_engine("none")  # The layout is half the time of a drawing, and the same in both files.


def dress(axes: Axes, title: str, *, both: bool = False) -> None:
    """A quiet grid and a title on the left."""
    axes.set_title(title, loc="left", fontsize=11, color=SOFT)
    axes.grid(axis="both" if both else "y", color=FAINT, linewidth=0.8)
    axes.tick_params(length=0, which="both")


def percent_axis(axes: Axes, which: str) -> None:
    """0 to 100 % on axis x or y."""
    getattr(axes, f"set_{which}ticks")(*TICKS)
    getattr(axes, f"set_{which}lim")(-0.02, 1.02)


def reach(estimates: Sequence[Estimate]) -> list[list[float]]:
    """The intervals as matplotlib takes them: distances below and above the means."""
    return [
        [max(0.0, estimate.mean - estimate.ci95[0]) for estimate in estimates],
        [max(0.0, estimate.ci95[1] - estimate.mean) for estimate in estimates],
    ]


def is_known(*estimates: Estimate) -> bool:
    """Whether all of them were measured."""
    return not any(math.isnan(estimate.mean) for estimate in estimates)
