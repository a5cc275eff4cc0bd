"""`percasym dashboard`: save the charts of a study as a W&B workspace. The runs themselves are sent by tracker=wandb.

percasym dashboard multirun/mine --project percasym --entity us
percasym dashboard multirun/mine --out mine.json       # the definition alone: no key, no network
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from percasym.config.escaping import shortened
from percasym.config.schema import ConfigError
from percasym.dashboard.workspace import definition, workspace
from percasym.report.load import RunRecord, load_runs
from percasym.report.words import counted
from percasym.runs.records import document, write_whole

TIMEOUT_SECONDS = 20
"""Of the request for the logged-in user."""


def register(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    dashboard = commands.add_parser("dashboard", help="the charts of a study as a saved W&B workspace")
    dashboard.add_argument("runs", type=Path, metavar="STUDY", help="folder of one study: multirun/<study>")
    dashboard.add_argument("--project", help="W&B project (default: the one that the runs went to)")
    dashboard.add_argument("--entity", help="W&B user or team (default: the one that the runs went to, or yours)")
    dashboard.add_argument("--out", type=Path, metavar="FILE", help="write the definition as JSON instead of saving it")
    dashboard.set_defaults(work=_dashboard)


def _dashboard(given: argparse.Namespace) -> None:
    if find_spec("wandb_workspaces") is None:
        raise ConfigError("percasym dashboard needs the wandb-workspaces package. Run `pip install wandb-workspaces`.")
    runs = load_runs(given.runs)
    studies = sorted({str(run.config.get("study")) for run in runs})
    if len(studies) > 1:
        raise ConfigError(f"{given.runs} holds {len(studies)} studies ({', '.join(studies)}). Name the folder of one.")
    tracked = _tracked(runs, "project")
    project = given.project or tracked or "percasym"
    entity = given.entity or _tracked(runs, "entity")
    untracked = f"No run of {given.runs} was sent to W&B, so a workspace would show nothing"
    if tracked is None and given.out is None:
        raise ConfigError(f"{untracked}. Train with tracker=wandb, or write the definition with --out FILE.")
    owner = _logged_in(entity) if given.out is None else entity or ""
    try:
        made = workspace(runs, study=studies[0], project=project, entity=owner)
    except ValueError as error:  # Names that wandb-workspaces does not take.
        raise ConfigError(f"There is no dashboard of these runs ({shortened(error)}).") from error
    if given.out is None:
        print(f"Dashboard: {_save(made)}")
    else:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(given.out, document(definition(made)))
        if tracked is None:
            print(f"{untracked} until they are: train with tracker=wandb.")
        print(f"Dashboard of {counted(len(runs), 'run')}: {given.out}")


def _tracked(runs: Iterable[RunRecord], key: str) -> str | None:
    """The project or entity that the runs were sent to; None where none was sent."""
    trackers = [run.config.get("tracker") or {} for run in runs]
    found = sorted({str(tracker[key]) for tracker in trackers if tracker.get(key)})
    if len(found) > 1:
        raise ConfigError(f"These runs went to {len(found)} places ({', '.join(found)}). Choose one with --{key}.")
    return found[0] if found else None


def _logged_in(entity: str | None) -> str:
    """`entity`, or W&B's default for the logged-in user. Raises ConfigError when nobody is logged in or W&B does not answer."""
    import wandb

    if not wandb.login(prompt=False, verify=False):
        raise ConfigError("Nobody is logged in to W&B. Run `wandb login`, or write the definition with --out FILE.")
    try:
        owner = entity or wandb.Api(timeout=TIMEOUT_SECONDS).default_entity
    except wandb.Error as error:
        raise _error(error) from error
    if not owner:
        raise ConfigError("W&B knows no default user or team for this login. Name one with --entity.")
    return str(owner)


def _save(made: Any) -> str:
    try:
        return str(made.save().url)
    except Exception as error:  # Errors of the server have no common class.
        raise _error(error) from error


def _error(error: Exception) -> ConfigError:
    message = " ".join(str(error).split()).rstrip(".")
    return ConfigError(f"W&B did not take the dashboard ({message}). Check key and network, or write the definition with --out FILE.")
