"""The charts of a study as a saved W&B workspace: fixed sections, reduced to the metrics that its runs logged.

Uses wandb-workspaces, W&B's own package for defining workspaces; `definition` gives the same workspace as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any, Literal

from percasym.report.load import RunRecord

MAX_RUNS = 100
"""Runs in one chart: a study seldom has more."""

A, A_P, A_R, WEIGHT = "eval/end_to_end", "eval/perception", "eval/reasoning", "balance/weight"


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart."""

    kind: Literal["lines", "scatter", "bars", "table"]
    """Metrics over steps; a point for each run at its last values of two metrics; last values as bars; the last samples of each run."""
    title: str
    """Of a table: its key, `samples/<split>`."""
    metrics: tuple[str, ...]
    """Scatter: x and y. Table: metrics of the runs that log such samples."""


def sections(logged: Set[str]) -> list[tuple[str, list[Panel]]]:
    """Titles and panels for runs that logged these metrics: a panel keeps the metrics that were logged, and goes where none was.

    >>> [(title, [panel.title for panel in panels]) for title, panels in sections({"lr", "grad/cosine", "grad/norm"})]
    [('Gradients', ['cosine of both', 'norm before clipping'])]
    """
    kept = [(title, [panel for one in panels if (panel := _reduced(one, logged)) is not None]) for title, panels in _layout(logged)]
    return [(title, panels) for title, panels in kept if panels]


def workspace(runs: Sequence[RunRecord], *, study: str, project: str, entity: str) -> Any:
    """The `wandb_workspaces` object of a study's runs, not yet saved."""
    import wandb_workspaces.workspaces as ws

    logged = {name for run in runs for values in run.metrics.values() for name in values}
    return ws.Workspace(
        name=f"percasym: {study}",
        entity=entity,
        project=project,
        sections=[ws.Section(name=title, is_open=True, panels=[_drawn(panel) for panel in panels]) for title, panels in sections(logged)],
        settings=ws.WorkspaceSettings(x_axis="step", max_runs=MAX_RUNS),
        runset_settings=ws.RunsetSettings(filters=ws.And(ws.Metric("Group") == study)),
        auto_generate_panels=False,
    )


def definition(workspace: Any) -> Mapping[str, Any]:
    """A workspace as W&B stores it."""
    view = workspace._to_model()  # The package has no public name for it.
    spec = view.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"entity": view.entity or None, "project": view.project, "name": view.display_name, "spec": spec}


def _layout(logged: Set[str]) -> list[tuple[str, list[Panel]]]:
    rewards = sorted(parts[1] for name in logged if (parts := name.split("/"))[0] == "reward" and parts[-1] == "mean")
    trained = ("outcome", "perception", "total")
    surrogates = [name for name in rewards if name not in trained]
    correlations = ("corr/outcome/perception", *_each("corr/{}/perception", surrogates))
    return [
        (
            "Trade-off",
            [
                Panel("scatter", "frontier: reasoning a_r against perception a_p", (A_P, A_R)),
                Panel("scatter", "end to end a against the weight of perception", (WEIGHT, A)),
                Panel("scatter", "end to end a against perception a_p", (A_P, A)),
            ],
        ),
        (
            "Perception and reasoning",
            [
                Panel("lines", "asymmetry: perception a_p and reasoning a_r", (A_P, A_R)),
                Panel("lines", "end to end a", (A,)),
                Panel("lines", "perception a_p", (A_P,)),
                Panel("lines", "reasoning a_r", (A_R,)),
                Panel("lines", "faithful", ("eval/faithful",)),
            ],
        ),
        (
            "Weight of perception",
            [
                Panel("lines", "weight w", (WEIGHT,)),
                Panel("lines", "share of the tokens", ("share/tokens",)),
                Panel("lines", "share of the loss", ("share/loss",)),
                Panel("lines", "share of the gradient", ("share/gradient",)),
            ],
        ),
        (
            "Gradients",
            [
                Panel("lines", "norms of both", ("grad/perception", "grad/reasoning")),
                Panel("lines", "cosine of both", ("grad/cosine",)),
                Panel("lines", "norm before clipping", ("grad/norm",)),
            ],
        ),
        (
            "Losses",
            [
                Panel("lines", "perception and reasoning", ("loss/perception", "loss/reasoning")),
                Panel("lines", "policy", ("loss/policy",)),
                Panel("lines", "policy: clipped, absolute log-ratio and KL", ("policy/clipped", "policy/drift", "policy/kl")),
            ],
        ),
        (
            "Rewards",
            [
                Panel("lines", "outcome, perception, total", _each("reward/{}/mean", trained)),
                Panel("lines", "surrogates", _each("reward/{}/mean", surrogates)),
                Panel("lines", "zero-variance prompts", _each("reward/{}/zero_variance", trained)),
            ],
        ),
        (
            "Correlation of rewards with perception",
            [
                Panel("lines", "within prompts: r of each reward and a_p", _each("{}/within", correlations)),
                Panel("bars", "at the last step: r over all rollouts", correlations),
                Panel("lines", "across prompts: r of a with a_p and a_r", _each("corr/outcome/{}/across", ("perception", "reasoning"))),
            ],
        ),
        ("Samples", [Panel("table", "samples/test", (A,)), Panel("table", "samples/rollouts", ("reward/total/mean",))]),
    ]


def _each(pattern: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(pattern.format(name) for name in names)


def _reduced(panel: Panel, logged: Set[str]) -> Panel | None:
    """The panel with the metrics that were logged; None where there are none, or where it needs all and one is missing."""
    metrics = tuple(name for name in panel.metrics if name in logged)
    if panel.kind in ("scatter", "table"):
        return panel if metrics == panel.metrics else None
    return replace(panel, metrics=metrics) if metrics else None


def _drawn(panel: Panel) -> Any:
    import wandb_workspaces.reports.v2 as wr

    match panel.kind:
        case "lines":
            return wr.LinePlot(title=panel.title, x="step", y=list(panel.metrics), max_runs_to_show=MAX_RUNS)
        case "scatter":
            x, y = panel.metrics
            return wr.ScatterPlot(title=panel.title, x=wr.SummaryMetric(x), y=wr.SummaryMetric(y))
        case "bars":
            return wr.BarPlot(title=panel.title, metrics=list(panel.metrics))
        case "table":
            return wr.WeavePanelSummaryTable(table_name=panel.title)
