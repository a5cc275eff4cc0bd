"""A study as a W&B workspace: the panels of its story, over the runs of its group, for metrics that its run directories hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from percasym.dashboard.panels import Bars, Lines, Panel, Scatter, Tables, sections
from percasym.report.load import RunRecord

MAX_RUNS = 100
"""Shown together in a chart: a study has seldom more."""


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


def definition(made: Any) -> Mapping[str, Any]:
    """A workspace as W&B stores it."""
    view = made._to_model()  # The package has no public name for it.
    spec = view.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"entity": view.entity or None, "project": view.project, "name": view.display_name, "spec": spec}


def _drawn(panel: Panel) -> Any:
    import wandb_workspaces.reports.v2 as wr

    match panel:
        case Lines():
            return wr.LinePlot(title=panel.title, x="step", y=list(panel.metrics), max_runs_to_show=MAX_RUNS)
        case Scatter():
            return wr.ScatterPlot(title=panel.title, x=wr.SummaryMetric(panel.x), y=wr.SummaryMetric(panel.y))
        case Bars():
            return wr.BarPlot(title=panel.title, metrics=list(panel.metrics))
        case Tables():
            return wr.WeavePanelSummaryTable(table_name=panel.name)
