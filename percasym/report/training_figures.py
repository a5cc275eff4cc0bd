"""Figures of training itself: weight, loss share, gradient norms and rewards over the steps; in RL the advantages of recorded rollouts."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from percasym.config.files import json_lines
from percasym.report.study import Cell, CellGroup
from percasym.report.style import INK, canvas, dress, shade, step_axis
from percasym.runs.records import ROLLOUTS, list_samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERS: Mapping[str, str] = {
    "balance/weight": "weight of perception w",
    "share/loss": "perception's share of the loss",
    "grad/perception": "gradient norm of perception",
    "grad/reasoning": "gradient norm of reasoning",
}
REWARDS: Mapping[str, str] = {
    "reward/perception/mean": "rollouts that state p*",
    "reward/outcome/mean": "rollouts with a right answer",
    "reward/total/zero_variance": "zero-variance prompts",
}
"""The same for RL; a zero-variance prompt is one whose rollouts all have the same reward."""
SHARES = ("balance/weight", "share/loss", *REWARDS)
MAX_POINTS = 100
"""Of one line: steps are averaged in blocks, which a panel of this width cannot resolve."""
LINES = ("-", "--", "-.", ":")

Outcome = tuple[bool, bool]
"""Whether a rollout stated p*, and whether its answer was right."""
OUTCOMES: Mapping[Outcome, str] = {
    (True, True): "percept right,\nanswer right",
    (True, False): "percept right,\nanswer wrong",
    (False, True): "percept wrong,\nanswer right",
    (False, False): "percept wrong,\nanswer wrong",
}
MAX_CELLS = 8
"""Cells with bars in one panel."""
MAX_LEVEL = 3
"""Most cells with bars wide enough for a horizontal number."""
GRADES, ADVANTAGE = '"grades": ', '"advantage": '
_DECODER = json.JSONDecoder()


def dynamics(groups: Sequence[CellGroup], numbers: Mapping[str, str] = NUMBERS) -> Figure | None:
    """A row for each group, a column for each of `numbers` that some cell logged; None where none did."""
    shown = [group for group in groups if any(averaged(cell, key)[0] for cell in group.cells for key in numbers)]
    keys = [key for key in numbers if any(averaged(cell, key)[0] for group in shown for cell in group.cells)]
    if not keys:
        return None
    with canvas(len(keys) * len(shown), panel=(3.3, 2.9), columns=len(keys)) as (figure, panels):
        for row, group in enumerate(shown):
            own = panels[row * len(keys) : (row + 1) * len(keys)]
            for axes, key in zip(own, keys, strict=True):
                if not any(averaged(cell, key)[0] for cell in group.cells):
                    axes.set_axis_off()
                    continue
                for place, cell in enumerate(group.cells):
                    colour = shade(place, len(group.cells))
                    line = averaged(cell, key)
                    marker = "o" if len(line[0]) < 3 else ""  # One measurement is no line.
                    style = LINES[place % len(LINES)]
                    axes.plot(*line, color=colour, linestyle=style, marker=marker, markersize=5, linewidth=1.6, label=cell.label)
                if key in SHARES:
                    axes.set_ylim(-0.02, 1.02)
                else:
                    axes.set_ylim(bottom=0)
                dress(axes, f"{group.title}\n{numbers[key]}" if len(shown) > 1 else numbers[key])
                step_axis(axes)
            handles = next(axes.get_legend_handles_labels() for axes in own if axes.lines)
            own[-1].legend(
                *handles, loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=9, ncols=1 + (len(group.cells) - 1) // 12
            )
        figure.supxlabel("optimizer steps", fontsize=11)
        return figure


def advantage_bars(groups: Sequence[CellGroup]) -> Figure | None:
    """Mean advantage of the rollouts of each outcome, a bar for each cell; None where no run recorded advantages.

    Over all recorded rollouts of all seeds with an advantage other than 0, which excludes zero-variance prompts. At w = 0 the outcome
    alone is rewarded: a wrong percept with a right answer has a positive advantage, a right percept with a wrong answer a negative one.
    """
    chosen = [(group, [(cell, found) for cell in group.cells if (found := advantages(cell))][:MAX_CELLS]) for group in groups]
    chosen = [(group, cells) for group, cells in chosen if cells]
    if not chosen:
        return None
    with canvas(len(chosen), panel=(7.2, 3.4), columns=1) as (figure, panels):
        for axes, (group, cells) in zip(panels, chosen, strict=True):
            width = 0.8 / len(cells)
            for place, (cell, found) in enumerate(cells):
                outcomes = [(at, found[outcome]) for at, outcome in enumerate(OUTCOMES) if outcome in found]
                left = [at + width * (place - (len(cells) - 1) / 2) for at, _ in outcomes]
                axes.bar(left, [fmean(values) for _, values in outcomes], width * 0.9, color=shade(place, len(cells)), label=cell.label)
                for x, (_, values) in zip(left, outcomes, strict=True):
                    mean = fmean(values)
                    below = mean < 0
                    turn = 90 if len(cells) > MAX_LEVEL else 0
                    axes.annotate(f"{len(values):,}", (x, mean), xytext=(0, -3 if below else 3), textcoords="offset points", fontsize=8,
                                  ha="center", va="top" if below else "bottom", rotation=turn)  # fmt: skip
            axes.axhline(0, color=INK, linewidth=0.8)
            axes.set_xticks(range(len(OUTCOMES)), list(OUTCOMES.values()))
            axes.margins(y=0.2)  # Room for the numbers.
            axes.yaxis.set_major_formatter("{x:+.2f}")  # Of one width: the layout is made before the ticks are chosen.
            axes.set_ylabel("mean advantage")
            axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=9)
            dress(axes, group.title)
        return figure


def advantages(cell: Cell) -> dict[Outcome, list[float]]:
    """The nonzero advantages of all recorded rollouts of a cell, by outcome."""
    found: dict[Outcome, list[float]] = {}
    for run in cell.runs:
        for file in list_samples(run.path, ROLLOUTS):
            for outcome, advantage in _read_advantages(file.path):
                if advantage:
                    found.setdefault(outcome, []).append(advantage)
    return found


def _read_advantages(file: Path) -> Iterator[tuple[Outcome, float]]:
    """Outcome and advantage of each rollout that has one; ids and texts, nine tenths of a file, are skipped.

    A rollout's grades are written before its advantage, and inside a text the quotes of both names would be escaped.
    """
    for _, raw in json_lines(file, links=False):
        line, at = raw.decode("utf-8"), 0
        while (start := line.find(GRADES, at)) >= 0:
            grades, at = _DECODER.raw_decode(line, start + len(GRADES))
            advantage, at = _DECODER.raw_decode(line, line.index(ADVANTAGE, at) + len(ADVANTAGE))
            if advantage is not None:
                yield (grades["perception"], grades["outcome"]), advantage


def averaged(cell: Cell, key: str) -> tuple[list[float], list[float]]:
    """Steps and means over the seeds, at most `MAX_POINTS` of them."""
    found: dict[int, list[float]] = {}
    for run in cell.runs:
        one = run.series(key)
        for step, value in zip(one.steps, one.values, strict=True):
            if math.isfinite(value):
                found.setdefault(step, []).append(value)
    points = [(step, fmean(values)) for step, values in sorted(found.items())]
    size = max(1, math.ceil(len(points) / MAX_POINTS))
    blocks = [points[start : start + size] for start in range(0, len(points), size)]
    return [fmean(step for step, _ in block) for block in blocks], [fmean(value for _, value in block) for block in blocks]
