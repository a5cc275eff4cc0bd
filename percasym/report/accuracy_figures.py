"""Figures of accuracies: perception against reasoning, end to end against the weight, curves over training, and gains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from percasym.report.curves import Curve, curve_of
from percasym.report.study import A_P, A_R, A, Cell, CellGroup
from percasym.report.style import (
    ACCURACIES,
    GREY,
    INK,
    LARGE_INCHES,
    OF_BARS,
    PANEL_INCHES,
    WEIGHT,
    canvas,
    dress,
    is_known,
    percent_axis,
    reach,
    step_axis,
)
from percasym.report.words import sample_count
from percasym.types import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MIN_LENGTH = 0.3
"""Minimum length of an axis of the frontier; on a shorter one noise would look like a result."""
MIN_COLOURS = 0.1
"""The same of the scale of colours."""
MARGIN = 0.02
"""Length of an axis beyond 0 and 100 %, so that points there are drawn whole."""
LETTER, LINE, DOT = 6, 11, 5
"""Width and height of a letter of a label, and radius of a point, in typographic points."""
OFFSETS = tuple(
    (distance * math.cos(angle), 0.8 * distance * math.sin(angle))
    for distance in (11, 24, 38, 54)
    for angle in (math.pi * turn / 12 for turn in (3, 9, 21, 15, 6, 18, 0, 12, 1, 11, 23, 13))
)
"""Places of a label around its point, in typographic points, by preference."""
NEAR, FAR = 0.5, 20
"""Cost of a place further down the list, in square points of overlap; distance from which a label has a line to its point."""
MAX_SMALL = 6
"""Cells in a panel of ordinary size."""
WHISKER: Any = {"linestyle": "", "color": GREY, "linewidth": 1.2, "zorder": 2}
MAX_PANELS, COLUMNS = 16, 3
"""Cells with learning curves (a panel takes a quarter of a second to draw), and panels beside each other."""
MAX_BARS = 12
"""Cells in one panel of bars."""
MAX_LEVEL = 4
"""Most cells with horizontal labels below their bars."""
BARS = (("perception", "perception a_p", "perception"), ("reasoning", "reasoning a_r", "reasoning"))
"""Metric, name and colour of each bar of a cell."""
CONTRIBUTION_BARS = (
    ("via_perception", "via perception", "perception"),
    ("via_reasoning", "via reasoning", "reasoning"),
    ("via_both", "via both", "green"),
    ("otherwise", "other", "soft"),
)
"""The same of the contributions to a change of a."""
CONTRIBUTION_WORDS = (
    "Via perception: a percept became right (or wrong), and that changed the answer; via reasoning: another answer to a percept that is "
    "right both times; via both: what needed the two; other: percepts wrong both times."
)
"""What these bars are, for captions."""
Bars = Sequence[tuple[str, str, str]]
ROOM = 0.76
"""Width of a cell's bars together; cells are 1 apart."""
Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in typographic points from the corner of the axes."""


def frontier(groups: Sequence[CellGroup]) -> Figure | None:
    """a_p against a_r, a point for each cell with a as its colour; None where no group has two cells that measured all three."""
    chosen = [(group, points) for group in groups if len(points := points_of(group, A_P, A_R, A)) > 1]
    if not chosen:
        return None
    crowded = max(len(points) for _, points in chosen) > MAX_SMALL
    with canvas(len(chosen), panel=LARGE_INCHES if crowded else PANEL_INCHES) as (figure, panels):
        colours = None
        low, high = _window([a.mean for _, points in chosen for _, (_, _, a) in points], MIN_COLOURS)  # One scale for all panels.
        for axes, (group, points) in zip(panels, chosen, strict=True):
            perception, reasoning, right = (list(column) for column in zip(*(numbers for _, numbers in points), strict=True))
            x, y = [one.mean for one in perception], [one.mean for one in reasoning]
            axes.errorbar(x, y, xerr=reach(perception), yerr=reach(reasoning), **WHISKER)
            constant = [i for i, (cell, _) in enumerate(points) if not cell.moves]
            axes.plot([x[i] for i in constant], [y[i] for i in constant], color=GREY, linewidth=1, linestyle=":", zorder=1)
            colours = axes.scatter(
                x, y, c=[one.mean for one in right], cmap="viridis", vmin=low, vmax=high, s=90, edgecolors="white", linewidths=1, zorder=3
            )
            _equal_axes(axes, perception, reasoning)
            axes.set_xlabel("perception a_p")
            axes.set_ylabel("reasoning a_r")
            dress(axes, group.title, grid="both")
        assert colours is not None
        figure.colorbar(colours, ax=panels, label="end to end a", format=lambda value, _: f"{100 * value:.0f} %", shrink=0.9)
        figure.draw_without_rendering()  # The size of the axes is known after the layout only.
        for axes, (_, points) in zip(panels, chosen, strict=True):
            _label_all(axes, [cell.label for cell, _ in points], [(a_p.mean, a_r.mean) for _, (a_p, a_r, _) in points])
        return figure


def against_weight(groups: Sequence[CellGroup]) -> Figure | None:
    """a against the weight of perception; None where no group has two constant weights.

    The line joins the cells with a constant weight. A strategy that moves the weight is drawn at its mean over training, with a bar from
    the minimum to the maximum.
    """
    measured = [(group, points_of(group, A)) for group in groups]
    chosen = [(group, points) for group, points in measured if sum(is_constant(cell) for cell, _ in points) > 1]
    if not chosen:
        return None
    with canvas(len(chosen)) as (figure, panels):
        for axes, (group, points) in zip(panels, chosen, strict=True):
            constant = [(cell.weights[0], one, cell.label) for cell, (one,) in points if is_constant(cell)]
            constant.sort(key=lambda point: point[0])
            x, ends = [weight for weight, _, _ in constant], [one for _, one, _ in constant]
            axes.errorbar(x, [one.mean for one in ends], yerr=reach(ends), color=INK, marker="o", markersize=6, linewidth=1.6, zorder=3)
            for weight, one, label in constant:  # Above the interval: beside the point is the next one.
                end = (weight, one.ci95[1])
                axes.annotate(label, end, xytext=(0, 3), textcoords="offset points", fontsize=10, color=INK, ha="center", zorder=5)
            for cell, (one,) in points:
                mean, low, high = cell.weights
                if not is_constant(cell) and math.isfinite(mean):
                    moved = [[mean - low], [high - mean]]
                    axes.errorbar([mean], [one.mean], yerr=reach([one]), xerr=moved, color=WEIGHT, marker="D", markersize=6, alpha=0.9)
                    axes.annotate(
                        cell.label, (mean, one.mean), xytext=(7, 6), textcoords="offset points", fontsize=10, color=WEIGHT, zorder=5
                    )
            axes.set_ylim(*_window([end for _, (one,) in points for end in one.ci95], MIN_LENGTH))
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
            right = min(1.02, 1.15 * max(cell.weights[2] for cell, _ in points if math.isfinite(cell.weights[2])))
            axes.set_xlim(-0.1 * right, right)  # Room for the label at w = 0.
            axes.set_xlabel("weight of perception w")
            axes.set_ylabel("end to end a")
            dress(axes, group.title)
        return figure


def learning_curves(groups: Sequence[CellGroup], accuracies: Sequence[tuple[str, str, str, str]] = ACCURACIES) -> Figure | None:
    """`accuracies` over training, a panel for each of the first `MAX_PANELS` cells; None where no run measured them twice."""
    first = accuracies[0][0]
    chosen = [(group, cell) for group in groups for cell in group.cells if len(mean_over_seeds(cell, first)) > 1][:MAX_PANELS]
    if not chosen:
        return None
    with canvas(len(chosen), panel=(3.1, 2.5), columns=COLUMNS) as (figure, panels):
        for place, (axes, (group, cell)) in enumerate(zip(panels, chosen, strict=True)):
            for key, name, colour, marker in accuracies:
                for run in cell.runs[: len(cell.runs) if len(cell.runs) > 1 else 0]:
                    one = curve_of(run, key).values
                    axes.plot([*one], [*one.values()], color=colour, linewidth=0.7, alpha=0.45)
                mean = mean_over_seeds(cell, key)
                axes.plot([*mean], [*mean.values()], color=colour, marker=marker, markersize=4.5, linewidth=2, label=name, clip_on=False)
            percent_axis(axes, "y")
            dress(axes, f"{group.title}\n{cell.label}" if len(groups) > 1 else cell.label)
            axes.tick_params(labelleft=place % COLUMNS == 0)  # One scale for all.
            step_axis(axes)
        figure.supxlabel(f"optimizer steps ({_measured_on((cell for _, cell in chosen), first)})", fontsize=11)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False)
        return figure


def gain_bars(groups: Sequence[CellGroup], bars: Bars = BARS, *, differences: bool = False) -> Figure | None:
    """Gains of these metrics, or differences to the baseline, beside each other for each cell; None where no cell has all of them."""
    chosen = []
    for group in groups:
        gains, known, title = numbers_of_bars(group, bars, differences=differences)
        if known:
            chosen.append((group, known[:MAX_BARS], gains, title))
    if not chosen:
        return None
    crowded = max(len(known) for _, known, *_ in chosen) > MAX_LEVEL
    with canvas(len(chosen), panel=(6.2, 3.8) if crowded else (4.6, 3.4)) as (figure, panels):
        for axes, (group, known, gains, title) in zip(panels, chosen, strict=True):
            step = ROOM / len(bars)
            for number, ((_, name, colour), gain) in enumerate(zip(bars, gains, strict=True)):
                shown = [gain[i] for i in known]
                places = [place + (number - (len(bars) - 1) / 2) * step for place in range(len(known))]
                axes.bar(places, [one.mean for one in shown], width=0.95 * step, color=OF_BARS[colour], label=name)
                axes.errorbar(places, [one.mean for one in shown], yerr=reach(shown), linestyle="", color=GREY, linewidth=1.2)
            axes.axhline(0, color=INK, linewidth=0.8)
            axes.set_xticks(range(len(known)), [group.cells[i].label for i in known])
            if len(known) > MAX_LEVEL:
                axes.tick_params(axis="x", rotation=35)
                for text in axes.get_xticklabels():
                    text.set(ha="right", rotation_mode="anchor")
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:+.1f}")
            axes.set_ylabel(title)
            dress(axes, group.title)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
        return figure


def numbers_of_bars(group: CellGroup, bars: Bars, *, differences: bool) -> tuple[list[list[Estimate]], list[int], str]:
    """Gains, or differences to the baseline, of each bar's metric by cell; the places of the cells that have all; the title of the axis."""
    numbers = [group.differences(metric) if differences else group.estimates(metric, "gain") for metric, *_ in bars]
    known = [place for place in range(len(group.cells)) if is_known(*(one[place] for one in numbers))]
    return numbers, known, f"minus {group.baseline.label}, in points" if differences and group.baseline else "gain in points"


def points_of(group: CellGroup, *metrics: str) -> list[tuple[Cell, tuple[Estimate, ...]]]:
    """The cells that measured all of these metrics, with their estimates."""
    columns = zip(*(group.estimates(metric) for metric in metrics), strict=True)
    return [(cell, numbers) for cell, numbers in zip(group.cells, columns, strict=True) if is_known(*numbers)]


def is_constant(cell: Cell) -> bool:
    """Whether the weight of a cell did not change, and is known."""
    return not cell.moves and math.isfinite(cell.weights[0])


def mean_over_seeds(cell: Cell, key: str) -> dict[int, float]:
    """Step -> mean, at the steps that every seed measured on the same samples."""
    series = [curve.values for curve in curves_of(cell, key)]
    steps = sorted(set.intersection(*map(set, series))) if series else []
    return {step: fmean(one[step] for one in series) for step in steps}


def curves_of(cell: Cell, key: str) -> list[Curve]:
    """The curves of the seeds that have one."""
    return [curve for run in cell.runs if (curve := curve_of(run, key))]


def _measured_on(cells: Iterable[Cell], key: str) -> str:
    """The numbers of test samples behind the curves."""
    counts = {curve.num_samples for cell in cells for curve in curves_of(cell, key)}
    known = sorted(count for count in counts if count is not None)
    return f"{sample_count(known)} test samples" if known else sample_count(known)


def _equal_axes(axes: Axes, perception: Sequence[Estimate], reasoning: Sequence[Estimate]) -> None:
    """Limits of equal length on both axes, within 0 to 100 %: a percentage point has one length in both directions."""
    ends = [[end for one in side for end in (*one.ci95, one.mean)] for side in (perception, reasoning)]
    length = max(MIN_LENGTH, *(1.16 * (max(values) - min(values)) for values in ends))
    for which, values in zip("xy", ends, strict=True):
        getattr(axes, f"set_{which}lim")(*_window(values, length))
        getattr(axes, f"{which}axis").set_major_formatter(lambda value, _: f"{100 * value:.0f} %")


def _window(values: Sequence[float], shortest: float) -> tuple[float, float]:
    """Ends of an axis around these shares, at least so long and within 0 to 100 %."""
    length = min(1 + 2 * MARGIN, max(shortest, 1.16 * (max(values) - min(values))))
    low = min(max((min(values) + max(values) - length) / 2, -MARGIN), 1 + MARGIN - length)
    return low, low + length


def _label_all(axes: Axes, labels: Sequence[str], points: Sequence[tuple[float, float]]) -> None:
    """Write each label where it covers the fewest points and labels, as near to its own point as possible; a far one has a line to it."""
    box = axes.get_window_extent()
    size = [72 * side / axes.figure.dpi for side in (box.width, box.height)]
    places = [(x * size[0], y * size[1]) for x, y in (axes.transData + axes.transAxes.inverted()).transform(points)]
    taken = [(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in places]
    for label, place, point in sorted(zip(labels, places, points, strict=True), key=lambda one: one[1]):
        boxes = [_label_box(label, place, offset) for offset in OFFSETS]
        costs = [sum(_overlap(one, other) for other in taken) + _outside(one, *size) + NEAR * i for i, one in enumerate(boxes)]
        best = costs.index(min(costs))
        taken.append(boxes[best])
        x, y = OFFSETS[best]
        line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.7, "shrinkB": 5} if math.hypot(x, y) > FAR else None
        axes.annotate(label, point, xytext=(x, y), textcoords="offset points", fontsize=10, color=INK, ha=_side(x), va="center", zorder=5,
                      arrowprops=line)  # fmt: skip


def _label_box(label: str, place: tuple[float, float], offset: tuple[float, float]) -> Box:
    width, x, y = LETTER * len(label), place[0] + offset[0], place[1] + offset[1]
    left = {"left": x, "center": x - width / 2, "right": x - width}[_side(offset[0])]
    return left, y - LINE / 2, left + width, y + LINE / 2


def _side(x: float) -> Literal["left", "center", "right"]:
    return "left" if x > 1 else "right" if x < -1 else "center"


def _overlap(one: Box, other: Box) -> float:
    return max(0.0, min(one[2], other[2]) - max(one[0], other[0])) * max(0.0, min(one[3], other[3]) - max(one[1], other[1]))


def _outside(box: Box, width: float, height: float) -> float:
    return LINE * (max(0.0, -box[0]) + max(0.0, box[2] - width) + max(0.0, -box[1]) + max(0.0, box[3] - height))
