"""What happened inside: weight, share of the loss and gradient norms over training; in RL what the rollouts were paid, too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from percasym.report.study import Cell, CellGroup
from percasym.report.style import canvas, dress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUMBERS: Mapping[str, str] = {
    "balance/weight": "weight of perception w",
    "share/loss": "perception's share of the loss",
    "grad/perception": "gradient norm of perception",
    "grad/reasoning": "gradient norm of reasoning",
}
PAYMENT: Mapping[str, str] = {
    "reward/perception/mean": "rollouts that state p*",
    "reward/outcome/mean": "rollouts with a right answer",
    "reward/total/zero_variance": "prompts that teach nothing",
}
"""The same for reinforcement learning; the last is the share of prompts whose rollouts all earn the same."""
SHARES = ("balance/weight", "share/loss", *PAYMENT)
MAX_POINTS = 100
"""Of one line: steps are averaged in blocks, which a panel of this width could not show apart."""
LINES = ("-", "--", "-.", ":")


def dynamics(groups: Sequence[CellGroup], numbers: Mapping[str, str] = NUMBERS) -> Figure | None:
    """A figure's rows are groups, its columns those of `numbers` that some cell logged; nothing where none did."""
    shown = [group for group in groups if any(_line(cell, key)[0] for cell in group.cells for key in numbers)]
    keys = [key for key in numbers if any(_line(cell, key)[0] for group in shown for cell in group.cells)]
    if not keys:
        return None
    with canvas(len(keys) * len(shown), panel=(3.3, 2.9), columns=len(keys)) as (figure, panels):
        for row, group in enumerate(shown):
            for axes, key in zip(panels[row * len(keys) : (row + 1) * len(keys)], keys, strict=True):
                for place, cell in enumerate(group.cells):
                    colour = shade(place, len(group.cells))
                    line = _line(cell, key)
                    marker = "o" if len(line[0]) < 3 else ""  # One measurement is no line.
                    style = LINES[place % len(LINES)]
                    axes.plot(*line, color=colour, linestyle=style, marker=marker, markersize=5, linewidth=1.6, label=cell.label)
                if key in SHARES:
                    axes.set_ylim(-0.02, 1.02)
                else:
                    axes.set_ylim(bottom=0)
                dress(axes, f"{group.title}\n{numbers[key]}" if len(shown) > 1 else numbers[key])
            last = panels[(row + 1) * len(keys) - 1]
            last.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=9, ncols=1 + (len(group.cells) - 1) // 12)
        figure.supxlabel("optimizer steps", fontsize=11)
        return figure


def _line(cell: Cell, key: str) -> tuple[list[float], list[float]]:
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


def shade(place: int, count: int) -> tuple[float, float, float, float]:
    """The colour of the cell at `place` among `count`: along viridis, without its ends: one is lost on dark paper, the other on white."""
    from matplotlib import colormaps

    red, green, blue, alpha = colormaps["viridis"](0.3 + 0.5 * place / max(1, count - 1))
    return red, green, blue, alpha
