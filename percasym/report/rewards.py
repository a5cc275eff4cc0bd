"""The diagnosis of rewards (how each correlates with perception) as tables and as a scatter plot.

`percasym diagnose-rewards` shows it for a file of rollouts, a report for the last rollouts that the first RL run of a study recorded.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from percasym.config.escaping import csv_cell
from percasym.diagnosis.advice import advice, coupling_of_outcome, variance_advice, weight_advice
from percasym.diagnosis.correlations import NOISE, Array, Coupling, short
from percasym.diagnosis.diagnose import Diagnosis, RewardDiagnosis, diagnose
from percasym.diagnosis.rollout_file import RolloutGroup, latest_rollouts, read_rollouts
from percasym.diagnosis.scores import grid
from percasym.diagnosis.stream import graded
from percasym.report.study import CellGroup
from percasym.report.style import DPI, FAINT, INK, PERCEPTION, REASONING, look
from percasym.report.tables import markdown_table
from percasym.report.words import counted
from percasym.runs.records import ROLLOUTS, list_samples, replacing

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCORES = ("reward", "n", "no score", "mean", "std", "one value")
VIEWS = ("within", "pooled", "across")
LEGEND = (
    "* reads the percept label. no score: rollouts that a reward cannot score; one value: prompts whose rollouts all have the same score. "
    "r is Pearson's with its 95 % interval (bootstrap over prompts): within prompts, over all rollouts, and of the prompts' means."
)
PANEL_INCHES, MAX_COLUMNS = 3.2, 4
JITTER = 0.045
"""Half the width, in score, of the band over which equal points are spread."""
ROLLOUT: Any = {"linestyle": "", "marker": ".", "color": PERCEPTION, "alpha": 0.3, "markersize": 5, "markeredgewidth": 0}
PROMPT: Any = {"linestyle": "", "marker": "o", "color": REASONING, "markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.5}
LINE: Any = {"color": INK, "linewidth": 1.8}


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRewards:
    """The rollouts that a run recorded, and the diagnosis of their rewards."""

    source: str
    """Cell, seed and file."""
    seed: int | None
    """Of the run; None where its folder does not say."""
    rollouts: Sequence[RolloutGroup]
    found: Diagnosis


def recorded_rewards(groups: Sequence[CellGroup]) -> RecordedRewards | None:
    """The rewards of the first run that recorded rollouts with rewards; None where there is none."""
    runs = [run.path for group in groups for cell in group.cells for run in cell.runs if list_samples(run.path, ROLLOUTS)]
    return next((one for path in runs if (one := _diagnosed(path)) is not None), None)


def reward_scatter(groups: Sequence[CellGroup]) -> Figure | None:
    """The scatter plot of a study; None where no run recorded rollouts with rewards."""
    one = recorded_rewards(groups)
    return None if one is None else scatter_figure(one.rollouts, one.found, one.source)


def reward_tables(found: Diagnosis) -> tuple[Table, Table]:
    """The scores of each reward, and its correlations; each fits 80 columns."""
    scores = _table(diagnosis_title(found), (*SCORES, "graded", "a"))
    correlations = _table("r with exact perception a_p", ("reward", *VIEWS))
    for reward in found.rewards:
        scores.add_row(*_scores(reward), short(reward.perception_graded.within.r), short(reward.outcome.pooled.r))
        correlations.add_row(panel_title(reward), *_views(reward.perception))
    scores.caption = "graded: r with graded perception within prompts; a: r with the outcome over all rollouts"
    correlations.caption = LEGEND
    return scores, correlations


def rewards_markdown(found: Diagnosis) -> str:
    """One row for each reward, then the advice."""
    header = [*SCORES, *(f"{what} {view}" for what in ("a_p", "graded a_p", "a") for view in VIEWS)]
    rows = [
        [*_scores(reward), *_views(reward.perception), *_views(reward.perception_graded), *_views(reward.outcome)]
        for reward in found.rewards
    ]
    return "\n".join(
        [
            f"{diagnosis_title(found)}.", "", markdown_table(header, rows), LEGEND.replace("*", r"\*"), "",
            *(line for paragraph in (variance_advice(found), advice(found), weight_advice(found)) if paragraph for line in (paragraph, "")),
            coupling_of_outcome(found), "",
        ]
    )  # fmt: skip


def page_table(found: Diagnosis) -> tuple[list[str], list[list[str]], list[str]]:
    """Header, rows and notes for the page: the scores of each reward, its r with exact a_p, and the advice."""
    header = [*SCORES, *(f"r(a_p) {view}" for view in VIEWS)]
    rows = [[*_scores(reward), *_views(reward.perception)] for reward in found.rewards]
    return header, rows, [LEGEND, advice(found), coupling_of_outcome(found)]


def rewards_csv(found: Diagnosis) -> str:
    """One row for each reward with every number unrounded; empty where a number does not exist."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    parts = ("perception", "perception_graded", "outcome", "paid")
    correlations = [f"{part}_{view}_{number}" for part in parts for view in VIEWS for number in ("r", "low", "high", "n")]
    writer.writerow(["reward", "labelled", "num_rollouts", "not_measurable", "mean", "std", "zero_variance", *correlations])
    for reward in found.rewards:
        scores = reward.scores
        numbers = [scores.num_rollouts, scores.not_measurable, scores.mean, scores.std, scores.zero_variance]
        for part in parts:
            for view in VIEWS:
                correlation = getattr(getattr(reward, part), view)
                numbers += [correlation.r, *correlation.ci95, correlation.n]
        known = ("" if math.isnan(number) else number for number in numbers)
        writer.writerow([csv_cell(reward.name), str(reward.labelled).lower(), *known])
    return out.getvalue()


def diagnosis_title(found: Diagnosis) -> str:
    """The number of rewards, rollouts and prompts."""
    rollouts, prompts = counted(found.num_rollouts, "rollout"), counted(found.num_groups, "prompt")
    return f"{counted(len(found.rewards), 'reward')} on {rollouts} of {prompts}"


def scatter(groups: Sequence[RolloutGroup], found: Diagnosis, path: Path) -> Path:
    """Draw `scatter_figure` into the PNG at `path`."""
    with replacing(path) as partial:
        scatter_figure(groups, found).savefig(partial, format="png")
    return path


def scatter_figure(groups: Sequence[RolloutGroup], found: Diagnosis, source: str | None = None) -> Figure:
    """A panel for each reward of `found`: its score against perception, with every rollout, each prompt's mean and the regression line.

    `source` is written above all panels. Points are jittered for the eye only; means, line and r are of the scores themselves.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(MAX_COLUMNS, len(found.rewards))
    rows = math.ceil(len(found.rewards) / columns)
    target = perception_grid(groups, found)
    with rc_context(look(10)):
        figure = Figure(figsize=(PANEL_INCHES * max(columns, 2), PANEL_INCHES * rows + 0.9), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
        for axes, reward in zip(panels, found.rewards, strict=False):
            _panel(axes, grid([group.rewards[reward.name] for group in groups]), target)
            axes.set_title(panel_title(reward), loc="left", fontweight="bold", fontsize=11, pad=36)
            axes.text(0, 1.03, panel_note(reward, found.exact), transform=axes.transAxes, va="bottom", color="#444444")
        for axes in panels[len(found.rewards) :]:
            axes.remove()
        figure.supylabel(target_name(found), fontsize=11)
        figure.supxlabel("score of the reward (* reads the percept label)", fontsize=11)
        figure.legend(handles=_legend(), loc="outside upper left", ncols=3, frameon=False, title=source, alignment="left")
        figure.draw_without_rendering()  # Ticks take the style when they are first drawn.
    return figure


def perception_grid(groups: Sequence[RolloutGroup], found: Diagnosis) -> Array:
    """The target of the diagnosis for each rollout [P, G]: exact a_p or graded perception."""
    return grid(graded([group.grades for group in groups], lambda grade: grade.perception if found.exact else grade.perception_graded))


def target_name(found: Diagnosis) -> str:
    """What `perception_grid` holds, for an axis."""
    return "exact perception a_p" if found.exact else "graded perception"


def jittered(x: Array, y: Array) -> tuple[Array, Array]:
    """Both [P, G] moved by up to `JITTER`, so that equal points do not cover each other; the same points at each call."""
    moved = np.random.default_rng(0).uniform(-JITTER, JITTER, size=(2, *x.shape))
    return x + moved[0], y + moved[1]


def regression(x: Array, y: Array) -> tuple[Array, Array] | None:
    """The two ends of the least-squares line of y on x, both [P, G] with nan in x where there is no score; None where x is constant."""
    known = ~np.isnan(x)
    if not known.any() or (spread := float(x[known].std())) <= NOISE:
        return None
    slope = float(((x[known] - x[known].mean()) * (y[known] - y[known].mean())).mean()) / spread**2
    ends = np.array([x[known].min(), x[known].max()])
    return ends, y[known].mean() + slope * (ends - x[known].mean())


def panel_title(reward: RewardDiagnosis) -> str:
    """The name, with a star where the reward reads the percept label."""
    return f"{reward.name} *" if reward.labelled else reward.name


def panel_note(reward: RewardDiagnosis, exact: bool) -> str:
    """r over all rollouts with its interval, within prompts and across them; or why there is none."""
    found = reward.perception if exact else reward.perception_graded
    if math.isnan(reward.scores.mean):
        return "never scored"
    if math.isnan(found.pooled.r):
        return "one value throughout"
    return f"r = {found.pooled}\nwithin {short(found.within.r)}, across {short(found.across.r)}"


@lru_cache(maxsize=1)  # The figure and the table need it one after the other.
def _diagnosed(run: Path) -> RecordedRewards | None:
    file = latest_rollouts(run)
    rollouts = read_rollouts(file)
    if not rollouts[0].rewards:
        return None
    named = re.fullmatch(r"seed(\d{1,9})", run.name)
    source = "/".join((*run.parts[-2:], file.name))
    return RecordedRewards(source=source, seed=int(named[1]) if named else None, rollouts=rollouts, found=diagnose(rollouts))


def _table(title: str, names: tuple[str, ...]) -> Table:
    made = Table(box=SIMPLE_HEAD, title=title, title_justify="left", caption_justify="left")
    for name in names:
        made.add_column(name, justify="left" if name == "reward" else "right", no_wrap=True)
    return made


def _scores(reward: RewardDiagnosis) -> list[str]:
    scores = reward.scores
    mean, std = ("-" if math.isnan(number) else f"{number:.2f}" for number in (scores.mean, scores.std))
    return [panel_title(reward), str(scores.num_rollouts), f"{scores.not_measurable:.0%}", mean, std, f"{scores.zero_variance:.0%}"]


def _views(found: Coupling) -> list[str]:
    return [str(getattr(found, view)) for view in VIEWS]


def _panel(axes: Axes, x: Array, y: Array) -> None:
    """The rollouts of one reward, x and y [P, G]; nan in x where it has no score."""
    known = ~np.isnan(x)
    moved = jittered(x, y)
    axes.plot(moved[0][known], moved[1][known], **ROLLOUT)
    scored = known.any(1)
    means = [np.where(known, side, 0.0).sum(1)[scored] / known.sum(1)[scored] for side in (x, y)]
    axes.plot(*means, **PROMPT)
    if (line := regression(x, y)) is not None:
        axes.plot(*line, **LINE)
    axes.set_xlim(-0.1, 1.1)
    axes.set_ylim(-0.1, 1.1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.grid(color=FAINT, linewidth=0.8)
    axes.tick_params(length=0)


def _legend() -> list[Artist]:
    from matplotlib.lines import Line2D

    looks = (
        (ROLLOUT | {"alpha": 0.7, "markersize": 8}, "a rollout (jittered)"),
        (PROMPT, "mean of a prompt"),
        (LINE, "regression over rollouts"),
    )
    return [Line2D([], [], label=label, **one) for one, label in looks]
