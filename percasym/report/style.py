"""Shared style of all figures: colours, a canvas without a window, axes and titles."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from percasym.types import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, SOFT, FAINT, GREY = "#222222", "#555555", "#d9d9d9", "#888888"
PERCEPTION, REASONING, WEIGHT = "#0072B2", "#D55E00", "#009E73"  # Okabe and Ito 2008: distinct in all kinds of colour vision.
OF_BARS = {"perception": PERCEPTION, "reasoning": REASONING, "green": WEIGHT, "soft": FAINT}
"""The page's name of a colour and the figures' colour."""
ACCURACIES = (
    ("eval/end_to_end", "end to end a", INK, "o"),
    ("eval/perception", "perception a_p", PERCEPTION, "s"),
    ("eval/reasoning", "reasoning a_r", REASONING, "^"),
)
"""Metric key, name, colour and marker of the accuracies over training."""
SAMPLED_ACCURACIES = tuple((key.replace("eval/", "eval/sampled_"), name, colour, marker) for key, name, colour, marker in ACCURACIES)
"""The same of answers sampled at temperature 1."""
DPI = 150
PANEL_INCHES, LARGE_INCHES = (4.6, 3.7), (6.6, 5.2)
MAX_COLUMNS = 2
"""Panels beside each other: two of 4.6 inches stay readable on a page of 72 rem."""
TICKS = ([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])


def look(font_size: int = 11) -> Any:
    """The rc settings of every figure."""
    return {
        "font.size": font_size,
        "text.parse_math": False,  # A name of a run may hold dollar signs.
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GREY,
        "axes.axisbelow": True,
    }


@contextmanager
def canvas(num_panels: int, panel: tuple[float, float] = PANEL_INCHES, columns: int = MAX_COLUMNS) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure with this many panels, `panel` inches each, in rows of at most `columns`."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = min(columns, num_panels)
    down = math.ceil(num_panels / across)
    with rc_context(look()):
        figure = Figure(figsize=(panel[0] * across, panel[1] * down), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        panels = list(figure.subplots(down, across, squeeze=False).flat)
        for axes in panels[num_panels:]:
            axes.remove()
        yield figure, panels[:num_panels]
        figure.draw_without_rendering()  # Ticks take the style when they are first drawn.
        figure.set_layout_engine("none")  # The layout is half the time of a drawing, and the same in both files.


def dress(axes: Axes, title: str, *, grid: str = "y") -> None:
    """Grid, no tick marks, title on the left."""
    axes.set_title(title, loc="left", fontsize=11, color=SOFT)
    axes.grid(axis=grid, color=FAINT, linewidth=0.8)  # type: ignore[arg-type]
    axes.tick_params(length=0, which="both")


def percent_axis(axes: Axes, which: str) -> None:
    """0 to 100 % on axis x or y."""
    getattr(axes, f"set_{which}ticks")(*TICKS)
    getattr(axes, f"set_{which}lim")(-0.02, 1.02)


def step_axis(axes: Axes) -> None:
    """Whole steps on axis x, also where a run has one step only."""
    low, high = axes.get_xlim()
    if high - low < 1:
        axes.set_xlim(low - 0.5, high + 0.5)
    axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]


def reach(estimates: Sequence[Estimate]) -> list[list[float]]:
    """The intervals as matplotlib takes them: distances below and above the means."""
    return [
        [max(0.0, estimate.mean - estimate.ci95[0]) for estimate in estimates],
        [max(0.0, estimate.ci95[1] - estimate.mean) for estimate in estimates],
    ]


def is_known(*estimates: Estimate) -> bool:
    """Whether all of them were measured."""
    return not any(math.isnan(estimate.mean) for estimate in estimates)


def shade(place: int, count: int) -> tuple[float, float, float, float]:
    """The colour of the cell at `place` among `count`: viridis without its ends, which vanish on a dark or a white page."""
    from matplotlib import colormaps

    red, green, blue, alpha = colormaps["viridis"](0.3 + 0.5 * place / max(1, count - 1))
    return red, green, blue, alpha
