"""The list of a report's figures, and their files: PNG for a README, SVG for the page.

A figure whose data the runs do not have is left out, with the reason in the report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from percasym.report.accuracy_figures import (
    CONTRIBUTION_BARS,
    CONTRIBUTION_WORDS,
    MAX_BARS,
    MAX_PANELS,
    against_weight,
    frontier,
    gain_bars,
    learning_curves,
)
from percasym.report.rewards import reward_scatter
from percasym.report.study import CellGroup
from percasym.report.style import SAMPLED_ACCURACIES
from percasym.report.training_figures import REWARDS, advantage_bars, dynamics
from percasym.runs.records import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One figure of a report."""

    name: str
    """File name without its ending."""
    title: str
    caption: str
    missing: str
    """The data it needs, for a report without it."""
    draw: Callable[[Sequence[CellGroup]], Figure | None]
    """None where the groups lack the data."""


DRAWINGS = (
    Drawing(
        name="frontier",
        title="The trade-off frontier",
        caption="Perception against reasoning on the test split; the colour is the end-to-end accuracy. "
        "A number is the weight of perception, a name a strategy. The dotted line joins constant weights.",
        missing="it needs two cells of one task, model and paradigm that are finished",
        draw=frontier,
    ),
    Drawing(
        name="weight",
        title="End-to-end accuracy against the weight",
        caption="Circles are constant weights; a diamond is a strategy that moves the weight, "
        "at its mean over training, with a bar from its minimum to its maximum.",
        missing="it needs two finished cells with constant weights (balance=none or fixed)",
        draw=against_weight,
    ),
    Drawing(
        name="learning",
        title="Perception and reasoning over training",
        caption="Means over seeds, thin lines are the seeds. A line joins points that are measured on the same n first test samples; the "
        "tables are of all test samples. "
        f"At most {MAX_PANELS} cells have a panel.",
        missing="it needs evaluations during training (paradigm.eval_every) or before and after",
        draw=learning_curves,
    ),
    Drawing(
        name="sampled",
        title="Perception and reasoning of sampled answers over training",
        caption="What RL trains: shares of answers sampled at temperature 1, several to each of the same n first test samples. Means over "
        "seeds, thin lines are the seeds.",
        missing="it needs evaluations of sampled answers (evaluation.num_sampled above 0)",
        draw=partial(learning_curves, accuracies=SAMPLED_ACCURACIES),
    ),
    Drawing(
        name="gap",
        title="Gains in perception and in reasoning",
        caption=f"Accuracy after training minus before, in percentage points. At most {MAX_BARS} cells of a group have bars.",
        missing="it needs finished runs with a gain in perception and in reasoning",
        draw=gain_bars,
    ),
    Drawing(
        name="contributions",
        title="Contributions to the gain of a",
        caption="Percentage points of a after training minus before; the bars of a cell add up to its gain. "
        f"{CONTRIBUTION_WORDS} At most {MAX_BARS} cells of a group have bars.",
        missing="it needs finished runs with a, a_p and a_r of the same samples before and after",
        draw=partial(gain_bars, bars=CONTRIBUTION_BARS),
    ),
    Drawing(
        name="differences",
        title="Contributions to the difference in a",
        caption="Percentage points of a after training, minus those of the baseline; the bars of a cell add up to its difference. "
        f"Contributions as above, from the baseline to the cell. At most {MAX_BARS} cells of a group have bars.",
        missing="it needs a cell with balance=none and another one, with a, a_p and a_r of the same samples",
        draw=partial(gain_bars, bars=CONTRIBUTION_BARS, differences=True),
    ),
    Drawing(
        name="dynamics",
        title="Weight, share and gradients",
        caption="Means over seeds. Gradient norms are those of the two unweighted losses (in RL: of the two rewards).",
        missing="it needs training steps that logged balance/weight, share/loss or grad/*",
        draw=dynamics,
    ),
    Drawing(
        name="payment",
        title="Rewards of the rollouts",
        caption="Means over seeds, of the rollouts of each step. All rollouts of a zero-variance prompt have the same reward, "
        "so they have no advantage.",
        missing="it needs a run of paradigm=rl",
        draw=partial(dynamics, numbers=REWARDS),
    ),
    Drawing(
        name="credit",
        title="Advantage by percept and answer",
        caption="Mean advantage of a rollout, by whether its percept and its answer are right, over all recorded rollouts with an "
        "advantage (their number is at the bar). The weight of perception decides whether a right percept with a wrong answer has a "
        "positive one.",
        missing="it needs a run of paradigm=rl whose recorded rollouts (paradigm.record_every above 0) differ in their rewards",
        draw=advantage_bars,
    ),
    Drawing(
        name="rewards",
        title="Correlation of rewards with perception",
        caption="The last recorded rollouts of one RL run: every rollout, and the mean of every prompt.",
        missing="it needs a run of paradigm=rl with recorded rollouts (paradigm.record_every above 0)",
        draw=reward_scatter,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnFigure:
    """The files of a figure."""

    drawing: Drawing
    png: Path
    svg: Path


def draw_figures(groups: Sequence[CellGroup], folder: Path) -> tuple[list[DrawnFigure], list[Drawing]]:
    """Draw every figure that the groups have the data for into `folder`; the second list is what was left out."""
    from matplotlib import rc_context

    drawn, left_out = [], []
    for drawing in DRAWINGS:
        paths = [folder / f"{drawing.name}.{kind}" for kind in ("png", "svg")]
        for path in paths:
            path.unlink(missing_ok=True)  # A figure of an earlier report would not belong to this one.
        figure = drawing.draw(groups)
        if figure is None:
            left_out.append(drawing)
            continue
        with rc_context({"svg.hashsalt": "percasym"}):  # The same study gives the same file.
            with replacing(paths[0]) as partial:
                figure.savefig(partial, format="png")
            with replacing(paths[1]) as partial:
                figure.savefig(partial, format="svg", metadata={"Date": None})
        drawn.append(DrawnFigure(drawing=drawing, png=paths[0], svg=paths[1]))
    return drawn, left_out
