"""What a weight buys: perception against reasoning, and the end-to-end accuracy that comes of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from percasym.report.curves import INK, REASONING, WEIGHT
from percasym.report.study import Cell, CellGroup
from percasym.report.style import canvas, dress, is_known, percent_axis, reach
from percasym.types import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

A, A_P, A_R = "end_to_end", "perception", "reasoning"
MIN_LENGTH = 0.3
"""Of an axis of the frontier: closer up, noise would look like a finding."""
RIM = 0.02
"""Of an axis beyond 0 and 100 %, so that points there are whole."""
CORNERS = ((7, 6, "left"), (-7, 6, "right"), (7, -14, "left"), (-7, -14, "right"))
"""Where a name may stand beside its point, in points of type; cells of like result lie on each other."""
LETTER = 6
"""Width of a letter of a name, in points of type."""
WHISKER: Any = {"linestyle": "", "color": "#888888", "linewidth": 1.2, "zorder": 2}


def frontier(groups: Sequence[CellGroup]) -> Figure | None:
    """a_p against a_r, a point for each cell with a as its colour; nothing where no group has two cells that measured all three."""
    chosen = [(group, points) for group in groups if len(points := _points(group, A_P, A_R, A)) > 1]
    if not chosen:
        return None
    with canvas(len(chosen)) as (figure, panels):
        shade = None
        most = max(a.mean for _, points in chosen for _, (_, _, a) in points) or 1.0  # One scale for all panels.
        for axes, (group, points) in zip(panels, chosen, strict=True):
            seen, thought, right = (list(column) for column in zip(*(numbers for _, numbers in points), strict=True))
            x, y = [one.mean for one in seen], [one.mean for one in thought]
            axes.errorbar(x, y, xerr=reach(seen), yerr=reach(thought), **WHISKER)
            still = [i for i, (cell, _) in enumerate(points) if not cell.moves]
            axes.plot([x[i] for i in still], [y[i] for i in still], color="#888888", linewidth=1, linestyle=":", zorder=1)
            shade = axes.scatter(
                x, y, c=[one.mean for one in right], cmap="viridis", vmin=0, vmax=most, s=90, edgecolors="white", linewidths=1, zorder=3
            )
            _frame(axes, seen, thought)
            _name(axes, [cell.label for cell, _ in points], list(zip(x, y, strict=True)))
            axes.set_xlabel("perception a_p")
            axes.set_ylabel("reasoning a_r")
            dress(axes, group.title, both=True)
        assert shade is not None
        figure.colorbar(shade, ax=panels, label="end to end a", format=lambda value, _: f"{100 * value:.0f} %", shrink=0.9)
        return figure


def against_weight(groups: Sequence[CellGroup]) -> Figure | None:
    """a against the weight of perception; nothing where no group has two constant weights.

    The line joins the cells whose weight was constant and its peak is marked; a strategy that moves the weight stands at its mean
    over training, with a bar from the least to the largest.
    """
    measured = [(group, _points(group, A)) for group in groups]
    chosen = [(group, points) for group, points in measured if sum(_is_constant(cell) for cell, _ in points) > 1]
    if not chosen:
        return None
    with canvas(len(chosen)) as (figure, panels):
        for axes, (group, points) in zip(panels, chosen, strict=True):
            still = [(cell.weights[0], one, cell.label) for cell, (one,) in points if _is_constant(cell)]
            still.sort(key=lambda point: point[0])
            x, ends = [weight for weight, _, _ in still], [one for _, one, _ in still]
            axes.errorbar(x, [one.mean for one in ends], yerr=reach(ends), color=INK, marker="o", markersize=6, linewidth=1.6, zorder=3)
            for weight, one, label in still:  # Above the interval: beside the point is the next one.
                end = (weight, one.ci95[1])
                axes.annotate(label, end, xytext=(0, 3), textcoords="offset points", fontsize=10, color=INK, ha="center", zorder=5)
            top = max(still, key=lambda point: point[1].mean)
            axes.plot(top[0], top[1].mean, marker="*", markersize=19, color=REASONING, markeredgecolor="white", zorder=4)
            axes.annotate(f"peak {top[1].mean:.0%} at w = {top[0]:.2g}", (0.02, 0.98), xycoords="axes fraction", color=REASONING, va="top")
            for cell, (one,) in points:
                mean, low, high = cell.weights
                if not _is_constant(cell) and math.isfinite(mean):
                    moved = [[mean - low], [high - mean]]
                    axes.errorbar([mean], [one.mean], yerr=reach([one]), xerr=moved, color=WEIGHT, marker="D", markersize=6, alpha=0.9)
                    _write(axes, cell.label, mean, one.mean, colour=WEIGHT)
            percent_axis(axes, "y")
            axes.set_xlim(-0.06, 1.02)  # Room for the name of w = 0.
            axes.set_xlabel("weight of perception w")
            axes.set_ylabel("end to end a")
            dress(axes, group.title)
        return figure


def _points(group: CellGroup, *metrics: str) -> list[tuple[Cell, tuple[Estimate, ...]]]:
    """The cells that measured all of these."""
    columns = zip(*(group.estimates(metric) for metric in metrics), strict=True)
    return [(cell, numbers) for cell, numbers in zip(group.cells, columns, strict=True) if is_known(*numbers)]


def _frame(axes: Axes, seen: Sequence[Estimate], thought: Sequence[Estimate]) -> None:
    """Limits of equal length on both axes, so that a point gained in seeing is as long as one in thinking; none beyond 0 and 100 %."""
    ends = [[end for one in side for end in (*one.ci95, one.mean)] for side in (seen, thought)]
    length = min(1 + 2 * RIM, max(MIN_LENGTH, *(1.16 * (max(values) - min(values)) for values in ends)))
    for which, values in zip("xy", ends, strict=True):
        low = min(max((min(values) + max(values) - length) / 2, -RIM), 1 + RIM - length)
        getattr(axes, f"set_{which}lim")(low, low + length)
        getattr(axes, f"{which}axis").set_major_formatter(lambda value, _: f"{100 * value:.0f} %")


def _name(axes: Axes, names: Sequence[str], points: Sequence[tuple[float, float]]) -> None:
    """Write each name at the corner of its point that is farthest from all other points and from the names that stand already."""
    type_size = axes.get_window_extent().width / axes.figure.dpi * 72
    low, high = axes.get_xlim()
    bottom = axes.get_ylim()[0]
    places = [((x - low) * type_size / (high - low), (y - bottom) * type_size / (high - low)) for x, y in points]
    written: list[tuple[float, float]] = []
    for i, (name, (x, y)) in enumerate(zip(names, places, strict=True)):
        others = [place for j, place in enumerate(places) if j != i] + written
        half = LETTER * len(name) / 2
        middles = [(x + right + (half if side == "left" else -half), y + up + 4) for right, up, side in CORNERS]
        room = [min(math.dist(middle, other) for other in others) if middle[0] > half else 0 for middle in middles]
        corner = room.index(max(room))
        written.append(middles[corner])
        _write(axes, name, *points[i], corner=corner)


def _is_constant(cell: Cell) -> bool:
    return not cell.moves and math.isfinite(cell.weights[0])


def _write(axes: Axes, label: str, x: float, y: float, colour: str = INK, corner: int = 0) -> None:
    right, up, side = CORNERS[corner]
    axes.annotate(label, (x, y), xytext=(right, up), textcoords="offset points", fontsize=10, color=colour, ha=side, zorder=5)
