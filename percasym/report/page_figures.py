"""The figures of the page as plain data: panels of series of points, each point with its interval and the text that hovering shows.

`templates/figures.js` draws them with Chart.js. The PNG files beside the page show the same numbers (`figures.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from percasym.report.curves import Curve, curve_of
from percasym.report.study import A_P, A_R, A, Cell, CellGroup
from percasym.report.style import ACCURACIES
from percasym.report.training_figures import NUMBERS, OUTCOMES, REWARDS, SHARES, advantages, averaged
from percasym.report.words import counted, percent, points
from percasym.types import Estimate

Data = dict[str, Any]
"""JSON of one panel or series."""
Range = tuple[float, float] | None
"""Ends of an axis; None: as the points need."""
LOGARITHMIC = ("grad/perception", "grad/reasoning")
"""Numbers over training that differ by decades."""
DIGITS = 5
"""Significant digits of a coordinate: a tenth of a pixel."""
CAPTIONS: Mapping[str, str] = {
    "frontier": "Perception against reasoning after training, with 95 % intervals; up and to the right is better. The dotted line joins "
    "constant weights.",
    "weight": "Points are constant weights, joined by the dotted line; a strategy that moves its weight stands at the mean over training, "
    "with a bar from the minimum to the maximum.",
    "learning": "Means over seeds. All points of a curve are measured on the same first test samples, n of them; the tables are of all "
    "test samples.",
    "gap": "Accuracy after training minus before, in percentage points, with 95 % intervals.",
    "credit": "Mean advantage of a rollout by whether its percept and its answer are right, over all recorded rollouts with an advantage.",
}
"""Of the figures that the page draws otherwise than their PNG."""
GAINS = ((A_P, "gain of a_p", "perception"), (A_R, "gain of a_r", "reasoning"))


def page_panels(name: str, groups: Sequence[CellGroup]) -> list[Data]:
    """The panels of the drawing `name`; each names its group by its place."""
    make = MAKERS[name]
    return [{"group": place, **panel} for place, group in enumerate(groups) for panel in make(group)]


def cell_id(group: int, place: int) -> str:
    """Id of a cell in the page.

    >>> cell_id(0, 2)
    'g0c2'
    """
    return f"g{group}c{place}"


def _frontier(group: CellGroup) -> Iterator[Data]:
    found = [(place, cell, cell.estimate(A_P), cell.estimate(A_R), cell.estimate(A)) for place, cell in enumerate(group.cells)]
    known = [one for one in found if not any(math.isnan(estimate.mean) for estimate in (one[2], one[3], one[4]))]
    if len(known) < 2:
        return
    series = [
        _series(place, cell.label, [_point(a_p, a_r, [f"a_p {percent(a_p)}", f"a_r {percent(a_r)}", f"a {percent(a)}", _about(cell, a)])])
        for place, cell, a_p, a_r, a in known
    ]
    constant = [(a_p, a_r) for _, cell, a_p, a_r, _ in known if not cell.moves]
    if len(constant) > 1:
        series.append(
            {"line": True, "quiet": True, "points": [{"x": _short(100 * x.mean), "y": _short(100 * y.mean)} for x, y in constant]}
        )
    yield _panel("scatter", group.title, "perception a_p, %", "reasoning a_r, %", series)


def _weight(group: CellGroup) -> Iterator[Data]:
    found = [(place, cell, cell.estimate(A)) for place, cell in enumerate(group.cells)]
    known = [one for one in found if not math.isnan(one[2].mean) and math.isfinite(one[1].weights[0])]
    constant = sorted(((cell.weights[0], a.mean) for _, cell, a in known if not cell.moves))
    if len(constant) < 2:
        return
    series = []
    for place, cell, a in known:
        mean, low, high = cell.weights
        moved = Estimate(mean=mean, ci95=(low, high), n=0) if cell.moves else Estimate(mean=mean, ci95=(mean, mean), n=0)
        weight = f"w {mean:.2f} in the mean, {low:.2f} to {high:.2f} over training" if cell.moves else f"w {mean:.3g}, constant"
        series.append(_series(place, cell.label, [_point(moved, a, [f"a {percent(a)}", weight, _about(cell, a)], x_scale=1)]))
    series.append({"line": True, "quiet": True, "points": [{"x": _short(w), "y": _short(100 * a)} for w, a in constant]})
    yield _panel("scatter", group.title, "weight of perception w", "end to end a, %", series, x_range=(0, 1))


def _learning(group: CellGroup) -> Iterator[Data]:
    for key, name, *_ in ACCURACIES:
        series = []
        for place, cell in enumerate(group.cells):
            curves = [curve_of(run, key) for run in cell.runs]
            steps = sorted(set.intersection(*(set(curve.values) for curve in curves))) if all(curves) else []
            if len(steps) > 1:
                means = {step: 100 * fmean(curve.values[step] for curve in curves) for step in steps}
                drawn = [{"x": step, "y": _short(mean), "tip": _seeds(curves, step)} for step, mean in means.items()]
                series.append(_series(place, cell.label, drawn, line=True))
        if series:
            yield _panel("line", name, "optimizer steps", "%", series, y_range=(0, 100))


def _gap(group: CellGroup) -> Iterator[Data]:
    gains = {metric: group.estimates(metric, "gain") for metric, *_ in GAINS}
    known = [place for place in range(len(group.cells)) if not any(math.isnan(gains[metric][place].mean) for metric, *_ in GAINS)]
    if not known:
        return
    series = []
    for metric, name, colour in GAINS:
        bars = []
        for place in known:
            one, cell = gains[metric][place], group.cells[place]
            bars.append({"cell": place, **_ends(one, "y", 100), "tip": [f"{name} {points(one)}", _about(cell, one)]})
        series.append({"label": name, "colour": colour, "points": bars})
    labels = [{"cell": place, "text": group.cells[place].label} for place in known]
    yield _panel("bar", group.title, "", "gain in points", series) | {"categories": labels}


def _over_steps(numbers: Mapping[str, str], group: CellGroup) -> Iterator[Data]:
    for key, name in numbers.items():
        series = []
        for place, cell in enumerate(group.cells):
            steps, values = averaged(cell, key)
            if steps:
                drawn = [{"x": _short(x), "y": _short(y), "tip": [f"{y:.4g}"]} for x, y in zip(steps, values, strict=True)]
                series.append(_series(place, cell.label, drawn, line=True, dots=len(steps) < 3))
        if series:
            log = key in LOGARITHMIC and all(point["y"] > 0 for one in series for point in one["points"])
            panel = _panel("line", name, "optimizer steps", "log scale" if log else "", series, y_range=(0, 1) if key in SHARES else None)
            panel["y"] |= {"log": True} if log else {"min": 0}
            yield panel


def _credit(group: CellGroup) -> Iterator[Data]:
    found = [(place, cell, advantages(cell)) for place, cell in enumerate(group.cells)]
    series = [
        _series(place, cell.label, [
            {"y": _short(fmean(of[outcome])), "tip": [f"mean {fmean(of[outcome]):+.3f}", counted(len(of[outcome]), "rollout")]}
            if outcome in of else {"y": None, "tip": []}
            for outcome in OUTCOMES
        ])
        for place, cell, of in found if of
    ]  # fmt: skip
    if series:
        labels = [{"text": text.replace("\n", " ")} for text in OUTCOMES.values()]
        yield _panel("bar", group.title, "", "mean advantage", series) | {"categories": labels}


MAKERS = {
    "frontier": _frontier,
    "weight": _weight,
    "learning": _learning,
    "gap": _gap,
    "dynamics": lambda group: _over_steps(NUMBERS, group),
    "payment": lambda group: _over_steps(REWARDS, group),
    "credit": _credit,
}
"""Drawing -> the panels of one group. The scatter of rewards is of one run, and is shown as its PNG is drawn (`rewards.py`)."""


def _panel(kind: str, title: str, x: str, y: str, series: Sequence[Data], *, x_range: Range = None, y_range: Range = None) -> Data:
    return {"kind": kind, "title": title, "x": _axis(x, x_range), "y": _axis(y, y_range), "series": list(series)}


def _axis(title: str, ends: Range) -> Data:
    return {"title": title} | ({} if ends is None else {"min": ends[0], "max": ends[1]})


def _series(place: int, label: str, drawn: Sequence[Data], *, line: bool = False, dots: bool = True) -> Data:
    return {"cell": place, "label": label, "points": list(drawn), "line": line, "dots": dots}


def _point(x: Estimate, y: Estimate, tip: Sequence[str], *, x_scale: float = 100) -> Data:
    return {**_ends(x, "x", x_scale), **_ends(y, "y", 100), "tip": list(tip)}


def _ends(one: Estimate, axis: str, scale: float) -> Data:
    """A value and its interval as the error bars take them."""
    low, high = one.ci95
    numbers = {axis: one.mean, f"{axis}Min": min(low, one.mean), f"{axis}Max": max(high, one.mean)}
    return {name: _short(scale * number) for name, number in numbers.items()}


def _about(cell: Cell, one: Estimate) -> str:
    return f"n = {one.n}, {counted(len(cell.runs), 'seed')}"


def _seeds(curves: Sequence[Curve], step: int) -> list[str]:
    """Mean and seeds of a point of a curve."""
    values = [curve.values[step] for curve in curves]
    each = f" (seeds {', '.join(f'{100 * value:.1f}' for value in values)})" if len(values) > 1 else ""
    return [f"{100 * fmean(values):.1f} %{each}", curves[0].about]


def _short(number: float) -> float:
    """`DIGITS` significant digits: the page holds thousands of numbers."""
    return float(f"{number:.{DIGITS}g}")
