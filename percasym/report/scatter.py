"""How each reward lies against perception: a panel for each, with every rollout, every prompt's mean, and the regression line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from percasym.diagnosis.correlations import NOISE, Array, Coupling, short
from percasym.diagnosis.diagnose import Diagnosis, RewardDiagnosis
from percasym.diagnosis.rollout_file import RolloutGroup
from percasym.diagnosis.scores import grid
from percasym.diagnosis.stream import graded
from percasym.report.curves import FAINT, INK, PERCEPTION, REASONING

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_INCHES, MAX_COLUMNS, DPI = 3.2, 4, 150
JITTER = 0.045
"""Half the width, in score, of the band over which equal points are spread."""
ROLLOUT: Any = {"linestyle": "", "marker": ".", "color": PERCEPTION, "alpha": 0.3, "markersize": 5, "markeredgewidth": 0}
PROMPT: Any = {"linestyle": "", "marker": "o", "color": REASONING, "markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.5}
LINE: Any = {"color": INK, "linewidth": 1.8}


def scatter(groups: Sequence[RolloutGroup], found: Diagnosis, path: Path) -> Path:
    """Draw the rewards of `found` into the PNG at `path`, as `scatter_of` does."""
    scatter_of(groups, found).savefig(path)
    return path


def scatter_of(groups: Sequence[RolloutGroup], found: Diagnosis, source: str | None = None) -> Figure:
    """The rewards of `found` in its order, a panel each; the target of `found` stands upright, and `source` over all.

    Points are jittered for the eye only; means, line and r are of the scores themselves.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(MAX_COLUMNS, len(found.rewards))
    rows = math.ceil(len(found.rewards) / columns)
    target = grid(graded([group.grades for group in groups], lambda grade: grade.perception if found.exact else grade.perception_graded))
    style: Any = {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#888888",
        "axes.axisbelow": True,
    }
    with rc_context(style):
        figure = Figure(figsize=(PANEL_INCHES * max(columns, 2), PANEL_INCHES * rows + 0.9), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
        for axes, reward in zip(panels, found.rewards, strict=False):
            _panel(axes, grid([group.rewards[reward.name] for group in groups]), target)
            _title(axes, reward, reward.perception if found.exact else reward.perception_graded)
        for axes in panels[len(found.rewards) :]:
            axes.remove()
        figure.supylabel("exact perception a_p" if found.exact else "graded perception", fontsize=11)
        figure.supxlabel("score of the reward (* reads the percept label)", fontsize=11)
        figure.legend(handles=_legend(), loc="outside upper left", ncols=3, frameon=False, title=source, alignment="left")
        figure.draw_without_rendering()  # Ticks take the style when they are first drawn.
    return figure


def _panel(axes: Axes, x: Array, y: Array) -> None:
    """The rollouts of one reward, x and y [P, G]; nan in x where it has no score."""
    known = ~np.isnan(x)
    jitter = np.random.default_rng(0).uniform(-JITTER, JITTER, size=(2, *x.shape))
    axes.plot((x + jitter[0])[known], (y + jitter[1])[known], **ROLLOUT)
    scored = known.any(1)
    means = [np.where(known, side, 0.0).sum(1)[scored] / known.sum(1)[scored] for side in (x, y)]
    axes.plot(*means, **PROMPT)
    if known.any() and (spread := float(x[known].std())) > NOISE:
        slope = float(((x[known] - x[known].mean()) * (y[known] - y[known].mean())).mean()) / spread**2
        ends = np.array([x[known].min(), x[known].max()])
        axes.plot(ends, y[known].mean() + slope * (ends - x[known].mean()), **LINE)
    axes.set_xlim(-0.1, 1.1)
    axes.set_ylim(-0.1, 1.1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.grid(color=FAINT, linewidth=0.8)
    axes.tick_params(length=0)


def _title(axes: Axes, reward: RewardDiagnosis, found: Coupling) -> None:
    axes.set_title(f"{reward.name}{' *' if reward.labelled else ''}", loc="left", fontweight="bold", fontsize=11, pad=36)
    if math.isnan(reward.scores.mean):
        said = "never scored"
    elif math.isnan(found.pooled.r):
        said = "one value throughout"
    else:
        said = f"r = {found.pooled}\nwithin {short(found.within.r)}, across {short(found.across.r)}"
    axes.text(0, 1.03, said, transform=axes.transAxes, va="bottom", color="#444444")


def _legend() -> list[Artist]:
    from matplotlib.lines import Line2D

    looks = (
        (ROLLOUT | {"alpha": 0.7, "markersize": 8}, "a rollout (jittered)"),
        (PROMPT, "mean of a prompt"),
        (LINE, "regression over rollouts"),
    )
    return [Line2D([], [], label=label, **look) for look, label in looks]
