"""The correlation table of rewards: for the terminal, for a README, for a page, and as CSV with every number."""

from __future__ import annotations

import csv
import io
import math
from html import escape

from rich.box import SIMPLE_HEAD
from rich.table import Table

from percasym.diagnosis.advice import advice, coupling_of_outcome
from percasym.diagnosis.correlations import Coupling, short
from percasym.diagnosis.diagnose import Diagnosis, RewardDiagnosis

PAID = ("reward", "n", "no score", "mean", "std", "one value")
COUPLED = ("within", "pooled", "across")
LEGEND = (
    "* reads the percept label. no score: rollouts that a reward says nothing about; one value: prompts whose rollouts all earn the same. "
    "r is Pearson's with its 95 % interval (bootstrap over prompts): within prompts, over all rollouts, and of the prompts' means."
)


def tables(found: Diagnosis) -> tuple[Table, Table]:
    """What each reward pays, and what it goes together with; 80 columns hold both."""
    paid = _table(title(found), (*PAID, "graded", "a"))
    coupled = _table("r with exact perception a_p", ("reward", *COUPLED))
    for reward in found.rewards:
        paid.add_row(*_paid(reward), short(reward.perception_graded.within.r), short(reward.outcome.pooled.r))
        coupled.add_row(_name(reward), *_coupled(reward.perception))
    paid.caption = "graded: r with graded perception within prompts; a: r with the outcome over all rollouts"
    coupled.caption = LEGEND
    return paid, coupled


def markdown(found: Diagnosis) -> str:
    """One row for each reward, then the advice."""
    header = [*PAID, *(f"{what} {view}" for what in ("a_p", "graded a_p", "a") for view in COUPLED)]
    rows = [header, ["---", *["---:"] * (len(header) - 1)]]
    for reward in found.rewards:
        rows.append([*_paid(reward), *_coupled(reward.perception), *_coupled(reward.perception_graded), *_coupled(reward.outcome)])
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(
        [f"{title(found)}.", "", *lines, "", LEGEND.replace("*", r"\*"), "", advice(found), "", coupling_of_outcome(found), ""]
    )


def html(found: Diagnosis) -> str:
    """What each reward pays and its r with exact a_p, then the advice; it scrolls by itself where the page is narrow."""
    header = [*PAID, *(f"r(a_p) {view}" for view in COUPLED)]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    rows = [[*_paid(reward), *_coupled(reward.perception)] for reward in found.rewards]
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in row)}</tr>' for name, *row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    said = "".join(f"<p>{escape(text)}</p>" for text in (LEGEND, advice(found), coupling_of_outcome(found)))
    return f'<div class="scroll" tabindex="0" role="region" aria-label="table of rewards">{table}</div>\n{said}'


def comma_separated(found: Diagnosis) -> str:
    """One row for each reward with every number unrounded; empty where a number does not exist."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    parts = ("perception", "perception_graded", "outcome", "paid")
    coupled = [f"{part}_{view}_{number}" for part in parts for view in COUPLED for number in ("r", "low", "high", "n")]
    writer.writerow(["reward", "labelled", "num_rollouts", "not_measurable", "mean", "std", "zero_variance", *coupled])
    for reward in found.rewards:
        scores = reward.scores
        numbers = [scores.num_rollouts, scores.not_measurable, scores.mean, scores.std, scores.zero_variance]
        for part in parts:
            for view in COUPLED:
                correlation = getattr(getattr(reward, part), view)
                numbers += [correlation.r, *correlation.ci95, correlation.n]
        writer.writerow([reward.name, str(reward.labelled).lower(), *("" if math.isnan(number) else number for number in numbers)])
    return out.getvalue()


def title(found: Diagnosis) -> str:
    """How much was measured."""
    return f"{len(found.rewards)} rewards on {found.num_rollouts} rollouts of {found.num_groups} prompts"


def _table(title: str, names: tuple[str, ...]) -> Table:
    made = Table(box=SIMPLE_HEAD, title=title, title_justify="left", caption_justify="left")
    for name in names:
        made.add_column(name, justify="left" if name == "reward" else "right", no_wrap=True)
    return made


def _name(reward: RewardDiagnosis) -> str:
    return f"{reward.name} *" if reward.labelled else reward.name


def _paid(reward: RewardDiagnosis) -> list[str]:
    scores = reward.scores
    mean, std = ("-" if math.isnan(number) else f"{number:.2f}" for number in (scores.mean, scores.std))
    return [_name(reward), str(scores.num_rollouts), f"{scores.not_measurable:.0%}", mean, std, f"{scores.zero_variance:.0%}"]


def _coupled(found: Coupling) -> list[str]:
    return [str(getattr(found, view)) for view in COUPLED]
