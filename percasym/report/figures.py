"""The figures of a study, each as PNG for a README and as SVG for a page; one that the runs cannot fill is left out, and it is said why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from percasym.report.asymmetry import MAX_BARS, MAX_PANELS, gap_bars, learning_curves
from percasym.report.credit import credit
from percasym.report.dynamics import PAYMENT, dynamics
from percasym.report.frontier import against_weight, frontier
from percasym.report.rewards import reward_scatter
from percasym.report.study import CellGroup

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What a figure shows and when it can be drawn."""

    name: str
    title: str
    caption: str
    missing: str
    """What a study must have to fill it."""
    draw: Callable[[Sequence[CellGroup]], Figure | None]


DRAWINGS = (
    Drawing(
        name="frontier",
        title="The trade-off frontier",
        caption="Seeing against thinking on the test split, the colour is the end-to-end accuracy; "
        "a number is the weight of perception, a name a strategy. The dotted line joins constant weights.",
        missing="it needs two cells of one task, model and paradigm that are finished",
        draw=frontier,
    ),
    Drawing(
        name="weight",
        title="End-to-end accuracy against the weight",
        caption="Circles are constant weights, the star marks their peak; a diamond is a strategy that moves the weight, "
        "at its mean over training, with a bar from its least to its largest.",
        missing="it needs two finished cells with constant weights (balance=none or fixed)",
        draw=against_weight,
    ),
    Drawing(
        name="learning",
        title="Seeing and thinking over training",
        caption="Means over seeds, thin lines are the seeds. Every point is measured on the same n first test samples (where n is not "
        "recorded, the first and the last point on all of them); the tables are of all test samples. "
        f"At most {MAX_PANELS} cells have a panel.",
        missing="it needs evaluations on the way (paradigm.eval_every) or before and after",
        draw=learning_curves,
    ),
    Drawing(
        name="gap",
        title="What was gained",
        caption=f"Accuracy after training minus before, in percentage points. At most {MAX_BARS} cells of a group have bars.",
        missing="it needs finished runs with a gain in perception and in reasoning",
        draw=gap_bars,
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
        title="What the rollouts were paid for",
        caption="Means over seeds, of the rollouts of each step. A prompt whose rollouts all earn the same has no advantage in it.",
        missing="it needs a run of paradigm=rl",
        draw=partial(dynamics, numbers=PAYMENT),
    ),
    Drawing(
        name="credit",
        title="Praise and blame",
        caption="Mean advantage of a rollout, by what it saw and answered, over all recorded rollouts with an advantage (the bar says how "
        "many). The weight of perception decides whether seeing well is praised where the answer is wrong.",
        missing="it needs a run of paradigm=rl whose recorded rollouts (paradigm.record_every above 0) differ in what they earn",
        draw=credit,
    ),
    Drawing(
        name="rewards",
        title="Which reward goes together with perception",
        caption="The last recorded rollouts of one run of reinforcement learning: every rollout, and every prompt's mean.",
        missing="it needs a run of paradigm=rl with recorded rollouts (paradigm.record_every above 0)",
        draw=reward_scatter,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figured:
    """A figure on the disk."""

    drawing: Drawing
    png: Path
    svg: Path


def figures(groups: Sequence[CellGroup], folder: Path) -> tuple[list[Figured], list[Drawing]]:
    """Draw into `folder` what the groups can fill; the second list is what was left out."""
    from matplotlib import rc_context

    drawn, left_out = [], []
    for drawing in DRAWINGS:
        paths = [folder / f"{drawing.name}.{kind}" for kind in ("png", "svg")]
        for path in paths:
            path.unlink(missing_ok=True)  # A figure of an earlier report that this one cannot fill would be a lie.
        figure = drawing.draw(groups)
        if figure is None:
            left_out.append(drawing)
            continue
        with rc_context({"svg.hashsalt": "percasym"}):  # The same study gives the same file.
            figure.savefig(paths[0])
            figure.savefig(paths[1], metadata={"Date": None})
        drawn.append(Figured(drawing=drawing, png=paths[0], svg=paths[1]))
    return drawn, left_out
