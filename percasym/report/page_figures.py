"""The figures of the page as plain data: panels of series of points, each point with its interval and the text that hovering shows.

`templates/figures.js` draws them with Chart.js. The PNG files beside the page show the same numbers (`figures.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np

from percasym.diagnosis.diagnose import RewardDiagnosis
from percasym.diagnosis.rollout_file import RolloutGroup
from percasym.diagnosis.scores import grid
from percasym.report.accuracy_figures import (
    BARS,
    CONTRIBUTION_BARS,
    CONTRIBUTION_WORDS,
    Bars,
    curves_of,
    is_constant,
    mean_over_seeds,
    numbers_of_bars,
    points_of,
)
from percasym.report.curves import Curve
from percasym.report.rewards import RecordedRewards, jittered, panel_note, panel_title, perception_grid, regression, target_name
from percasym.report.study import A_P, A_R, A, Cell, CellGroup
from percasym.report.style import ACCURACIES, SAMPLED_ACCURACIES
from percasym.report.training_figures import NUMBERS, OUTCOMES, REWARDS, SHARES, advantages, averaged
from percasym.report.words import counted, percent, points
from percasym.statistics import proportion
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
    "sampled": "What RL trains: shares of answers sampled at temperature 1, several to each of the same n first test samples; means over "
    "seeds.",
    "gap": "Accuracy after training minus before, in percentage points, with 95 % intervals.",
    "contributions": "Percentage points of a after training minus before, with 95 % intervals; the bars of a cell add up to its gain. "
    f"{CONTRIBUTION_WORDS}",
    "differences": "Percentage points of a after training, minus those of the baseline, with 95 % intervals; the bars of a cell add up to "
    "its difference. Contributions as above, from the baseline to the cell.",
    "credit": "Mean advantage of a rollout by whether its percept and its answer are right, over all recorded rollouts with an advantage.",
    "rewards": "The last recorded rollouts of one RL run. A small point is a rollout, moved a little so that equal ones do not overlap; "
    "a circle is the mean of a prompt, larger where several prompts have the same one; the line is the regression over rollouts. r is "
    "Pearson's over all rollouts with its 95 % interval, within prompts, and of the prompts' means. * reads the percept label.",
}
"""Of the figures that the page draws otherwise than their PNG."""


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
    known = points_of(group, A_P, A_R, A)
    if len(known) < 2:
        return
    series = []
    for cell, (a_p, a_r, a) in known:
        tip = [f"a_p {percent(a_p)}", f"a_r {percent(a_r)}", f"a {percent(a)}", _about(cell, a)]
        series.append(_series(group.cells.index(cell), cell.label, [_point(a_p, a_r, tip)]))
    constant = [(a_p, a_r) for cell, (a_p, a_r, _) in known if not cell.moves]
    if len(constant) > 1:
        series.append(
            {"line": True, "quiet": True, "points": [{"x": _short(100 * x.mean), "y": _short(100 * y.mean)} for x, y in constant]}
        )
    yield _panel("scatter", group.title, "perception a_p, %", "reasoning a_r, %", series)


def _weight(group: CellGroup) -> Iterator[Data]:
    known = [(cell, a) for cell, (a,) in points_of(group, A) if math.isfinite(cell.weights[0])]
    constant = sorted((cell.weights[0], a.mean) for cell, a in known if is_constant(cell))
    if len(constant) < 2:
        return
    series = []
    for cell, a in known:
        mean, low, high = cell.weights
        moved = Estimate(mean=mean, ci95=(low, high), n=0) if cell.moves else Estimate(mean=mean, ci95=(mean, mean), n=0)
        weight = f"w {mean:.2f} in the mean, {low:.2f} to {high:.2f} over training" if cell.moves else f"w {mean:.3g}, constant"
        tip = [f"a {percent(a)}", weight, _about(cell, a)]
        series.append(_series(group.cells.index(cell), cell.label, [_point(moved, a, tip, x_scale=1)]))
    series.append({"line": True, "quiet": True, "points": [{"x": _short(w), "y": _short(100 * a)} for w, a in constant]})
    yield _panel("scatter", group.title, "weight of perception w", "end to end a, %", series, x_range=(0, 1))


def _learning(accuracies: Sequence[tuple[str, str, str, str]], group: CellGroup) -> Iterator[Data]:
    for key, name, *_ in accuracies:
        series = []
        for place, cell in enumerate(group.cells):
            means, curves = mean_over_seeds(cell, key), curves_of(cell, key)
            if len(means) > 1:
                drawn = [{"x": step, "y": _short(100 * mean), "tip": _seeds(curves, step)} for step, mean in means.items()]
                series.append(_series(place, cell.label, drawn, line=True))
        if series:
            yield _panel("line", name, "optimizer steps", "%", series, y_range=(0, 100))


def _gains(bars: Bars, group: CellGroup, *, differences: bool = False) -> Iterator[Data]:
    gains, known, title = numbers_of_bars(group, bars, differences=differences)
    if not known:
        return
    series = []
    for (_, name, colour), of_cells in zip(bars, gains, strict=True):
        drawn = []
        for place in known:
            one, cell = of_cells[place], group.cells[place]
            drawn.append({"cell": place, **_ends(one, "y", 100), "tip": [f"{name} {points(one)}", _about(cell, one)]})
        series.append({"label": name, "colour": colour, "points": drawn})
    labels = [{"cell": place, "text": group.cells[place].label} for place in known]
    yield _panel("bar", group.title, "", title, series) | {"categories": labels}


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
            panel["y"] |= {"log": True} if log else {} if key in SHARES else {"min": 0}
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


MAKERS: Mapping[str, Callable[[CellGroup], Iterator[Data]]] = {
    "frontier": _frontier,
    "weight": _weight,
    "learning": partial(_learning, ACCURACIES),
    "sampled": partial(_learning, SAMPLED_ACCURACIES),
    "gap": partial(_gains, BARS),
    "contributions": partial(_gains, CONTRIBUTION_BARS),
    "differences": partial(_gains, CONTRIBUTION_BARS, differences=True),
    "dynamics": lambda group: _over_steps(NUMBERS, group),
    "payment": lambda group: _over_steps(REWARDS, group),
    "credit": _credit,
}
"""Drawing -> the panels of one group. The scatter of rewards is of one run: `reward_panels`."""


def reward_panels(recorded: RecordedRewards) -> list[Data]:
    """A panel for each reward: its score against perception, as `rewards.scatter_figure` draws it. No panel belongs to a cell."""
    return [_reward_panel(recorded, reward) for reward in recorded.found.rewards]


def _reward_panel(recorded: RecordedRewards, reward: RewardDiagnosis) -> Data:
    x, y = grid([group.rewards[reward.name] for group in recorded.rollouts]), perception_grid(recorded.rollouts, recorded.found)
    known = ~np.isnan(x) & ~np.isnan(y)
    drawn = [{"x": round(float(a), 3), "y": round(float(b), 3)} for a, b in zip(*(side[known] for side in jittered(x, y)), strict=True)]
    series: list[Data] = [
        {"label": reward.name, "colour": "reasoning", "points": list(_prompts(recorded, reward.name, recorded.found.exact))},
        {"label": reward.name, "colour": "perception", "faint": True, "points": drawn},
    ]
    if (line := regression(x, y)) is not None:
        ends = [{"x": _short(float(a)), "y": _short(float(b))} for a, b in zip(*line, strict=True)]
        series.insert(0, {"line": True, "quiet": True, "solid": True, "colour": "ink", "points": ends})  # The first is drawn on top.
    shared = {"x_range": (-0.1, 1.1), "y_range": (-0.1, 1.1)}
    panel = _panel("scatter", panel_title(reward), "score of the reward", target_name(recorded.found), series, **shared)
    for side in ("x", "y"):
        panel[side]["ticks"] = [0, 0.5, 1]
    return {"group": 0, "note": panel_note(reward, recorded.found.exact).replace("\n", ", "), **panel}


def _prompts(recorded: RecordedRewards, name: str, exact: bool) -> Iterator[Data]:
    """A point for each pair of mean score and mean perception, with the prompts that have it; perception's interval is over puzzles."""
    same: dict[tuple[float, float], list[tuple[RolloutGroup, Sequence[float]]]] = {}
    for group in recorded.rollouts:
        scored = [
            (score, float(grade.perception if exact else grade.perception_graded))
            for score, grade in zip(group.rewards[name], group.grades, strict=True)
            if score is not None
        ]
        if scored:
            place = (_short(fmean(score for score, _ in scored)), _short(fmean(seen for _, seen in scored)))
            same.setdefault(place, []).append((group, [seen for _, seen in scored]))
    seed = "" if recorded.seed is None else f", seed {recorded.seed}"
    for (x, y), found in sorted(same.items()):
        seen = [(value, group.puzzle) for group, values in found for value in values]
        share = proportion([value for value, _ in seen], [puzzle for _, puzzle in seen])
        tip = [
            f"score {x:.2f}",
            f"{'a_p' if exact else 'graded a_p'} {percent(share)}",
            f"n = {counted(share.n, 'rollout')} of {counted(len(found), 'prompt')}{seed}",
        ]
        yield {"x": x, "y": y, "size": round(min(10, 3.5 + math.sqrt(len(found))), 1), "tip": tip}


def _panel(kind: str, title: str, x: str, y: str, series: Sequence[Data], *, x_range: Range = None, y_range: Range = None) -> Data:
    return {"kind": kind, "title": title, "x": _axis(x, x_range), "y": _axis(y, y_range), "series": list(series)}


def _axis(title: str, ends: Range) -> Data:
    if ends == (0, 1):  # A margin: a line or a point at 0 or 1 is not on the frame.
        return {"title": title, "min": -0.03, "max": 1.03, "ticks": [0, 0.2, 0.4, 0.6, 0.8, 1]}
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
