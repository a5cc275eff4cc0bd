"""The Hydra sweeper of a study: checks every cell before the first one starts, skips finished ones and prints a table of outcomes.

Unlike Hydra's own sweeper, one cell that fails does not end the others, and cells need not be one product (`cells.py`). The Hydra
launcher decides where cells run and how many at once: `hydra/launcher=joblib`, `submitit_slurm`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from percasym.config.composed_files import SWEEPER
from percasym.config.escaping import visible
from percasym.config.resolve import force_options, resolve, sentence
from percasym.config.schema import ConfigError
from percasym.config.settings import require_engine
from percasym.data.checks import data_fingerprint
from percasym.launch.sweep.cell_process import (
    FAILED,
    INTERRUPTED,
    Outcome,
    State,
    ignore_stops,
    interrupt_runs,
    outcome_on_disk,
    stoppable,
)
from percasym.launch.sweep.cells import expanded
from percasym.runs.console import PlainConsole
from percasym.runs.identity import find, mark_ended
from percasym.runs.study import Planned, add_to_study

STYLES: Mapping[State, str] = {"done": "green", "skipped": "dim", "failed": "red", "interrupted": "yellow", "not begun": "dim"}
FINISHED = ("done", "skipped")
"""States of a cell whose run is finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A cell whose configuration was checked."""

    words: Sequence[str]
    folder: Path
    """Folder of its study."""
    name: str
    """Its directory below that."""
    done: bool
    """Whether its run is finished."""

    @property
    def path(self) -> Path:
        """Its run directory."""
        return self.folder / self.name


class StudySweeper(Sweeper):
    """`cells`: lines of command-line words; `params`: key -> the values that it is swept over in every cell."""

    config: DictConfig
    """Hydra's configuration of the sweep, and what the cells have in common."""

    def __init__(self, cells: Sequence[str], params: Mapping[str, Any]) -> None:
        self.cells, self.params = cells, params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra before `sweep`."""
        self.context, self.config = hydra_context, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        if hasattr(self.launcher, "joblib"):  # The arguments of joblib.Parallel, in the launcher of hydra-joblib-launcher.
            self.launcher.joblib |= _joblib_arguments()

    def sweep(self, arguments: list[str]) -> None:
        """Run the unfinished cells; `arguments` are the words of the command line.

        Raises ConfigError before anything is written when one of them cannot run, SystemExit when one fails or they are interrupted.
        """
        checked = self.checked(arguments)
        _write_study(checked, {})
        waiting = [cell for cell in checked if not cell.done]
        outcomes = {cell.path: Outcome(state="skipped") for cell in checked if cell.done}
        code = 0
        try:
            with stoppable(first=lambda: interrupt_runs(cell.path for cell in waiting)):
                returns = self.launcher.launch([list(cell.words) for cell in waiting], initial_job_idx=0) if waiting else []
            outcomes |= {cell.path: _outcome(job) for cell, job in zip(waiting, returns, strict=True)}
        except KeyboardInterrupt:
            code = INTERRUPTED
        except Exception as error:  # Of the launcher: a worker that was killed, a cluster that rejects a job.
            code = FAILED
            print(visible(f"{type(self.launcher).__name__} failed: {sentence(error)}"), file=sys.stderr)
        outcomes = {cell.path: outcomes.get(cell.path) or outcome_on_disk(cell.path) for cell in checked}
        for path in (path for path, outcome in outcomes.items() if outcome.state == "interrupted"):
            mark_ended(path, "interrupted")  # Where the launcher killed its worker, the status is still `running`.
        _write_study(checked, outcomes)
        PlainConsole().print(*(outcome_table(folder, outcomes) for folder in _folders(checked)))
        if code != INTERRUPTED:
            for folder in _folders(checked):
                _compare([path for path, outcome in outcomes.items() if path.is_relative_to(folder) and outcome.state in FINISHED])
        if code == INTERRUPTED:
            print("Interrupted. The same command goes on with the study.", file=sys.stderr)
        elif any(outcome.state == "failed" for outcome in outcomes.values()):
            code = FAILED
        if code:
            sys.exit(code)

    def checked(self, arguments: Sequence[str]) -> list[Checked]:
        """The cells, each composed and resolved as in its own process.

        Raises ConfigError when one cannot run, or two would share a directory.
        """
        if isinstance(self.cells, str) or not isinstance(self.cells, Sequence) or not all(isinstance(line, str) for line in self.cells):
            raise ConfigError(f"hydra.sweeper.cells must be a list of lines, each words of a command line, got {self.cells}.")
        sources = self.config.hydra.runtime.config_sources
        conf = Path(next(source.path for source in sources if source.provider == "main"))
        parser = OverridesParser.create(self.context.config_loader)
        jobs = expanded(self.cells, self.params, arguments, lambda words: parser.parse_overrides(force_options(words, conf)))
        cells: dict[Path, Checked] = {}
        for words in jobs:
            cell = self._checked(words)
            if cell.path in cells:
                both = f"The cells {_shown(cells[cell.path].words)!r} and {_shown(words)!r} would share the directory {cell.path}."
                raise ConfigError(f"{both} Run them as two studies, or tell them apart: hydra.sweep.subdir='${{cell:KEY}}/seed${{seed}}'.")
            cells[cell.path] = cell
        return list(cells.values())

    def _checked(self, words: Sequence[str]) -> Checked:
        try:
            cfg = self.context.config_loader.load_sweep_config(self.config, list(words))
            folder, name, choices = Path(cfg.hydra.sweep.dir), str(cfg.hydra.sweep.subdir), cfg.hydra.runtime.choices
            with read_write(cfg), open_dict(cfg):
                del cfg.hydra
            settings = resolve(cfg, choices=choices, path=folder / name)
            require_engine(settings.engine)
            fingerprint = partial(data_fingerprint, settings)
            found = find(settings.path, settings.record, overwrite=settings.run.overwrite, fingerprint=fingerprint)
        except Exception as error:  # Hydra's or ours, about the words.
            raise ConfigError(f"{sentence(error)} No cell was started; this one is {_shown(words)}.") from error
        return Checked(words=words, folder=folder, name=name, done=found.status == "finished")


def register() -> None:
    """Make the sweeper known to Hydra under the name in conf/hydra/sweeper/study.yaml: it instantiates plug-ins of `hydra_plugins` only."""
    Plugins.instance().class_name_to_class[SWEEPER] = StudySweeper


def outcome_table(folder: Path, outcomes: Mapping[Path, Outcome]) -> Table:
    """A row for each cell of the study in `folder`, with the number in each state below."""
    rows = {path.relative_to(folder): outcome for path, outcome in outcomes.items() if path.is_relative_to(folder)}
    states = [outcome.state for outcome in rows.values()]
    counts = ", ".join(f"{states.count(state)} {state}" for state in STYLES if state in states)
    table = Table(box=SIMPLE_HEAD, title=str(folder), caption=counts, title_justify="left", caption_justify="left")
    table.add_column("cell", overflow="fold")
    table.add_column("outcome", overflow="fold")
    for name, outcome in rows.items():
        text = "skipped, for it was done" if outcome.state == "skipped" else outcome.state
        table.add_row(str(name), Text(f"{text}: {outcome.reason}" if outcome.reason else text, style=STYLES[outcome.state]))
    return table


def _joblib_arguments() -> dict[str, Any]:
    """Arguments that make joblib's workers ignore the signals of a terminal; none in releases whose Parallel takes no initializer."""
    from joblib import Parallel

    return {"initializer": ignore_stops} if "backend_kwargs" in signature(Parallel).parameters else {}


def _write_study(cells: Sequence[Checked], outcomes: Mapping[Path, Outcome]) -> None:
    """Write study.json of the studies of these cells, with the reasons of those that failed."""
    reasons = {path: outcome.reason for path, outcome in outcomes.items() if outcome.state == "failed"}
    for folder in _folders(cells):
        add_to_study(folder, [Planned(name=c.name, words=tuple(c.words), reason=reasons.get(c.path)) for c in cells if c.folder == folder])


def _folders(cells: Sequence[Checked]) -> list[Path]:
    """More than one only where `study` itself is swept."""
    return list(dict.fromkeys(cell.folder for cell in cells))


def _compare(paths: Sequence[Path]) -> None:
    """Print the comparison of these finished runs; an error here is one sentence, and no failure of the study."""
    from percasym.report.comparison_table import console, show  # Here, because cells import this module too and do not need it.
    from percasym.report.load import load_run
    from percasym.report.study import study_name, study_of

    try:
        runs = [load_run(path) for path in paths]
        folder = paths[0].parents[1] if paths else Path()
        show(study_of(runs, study_name(runs, folder)), console())
    except (ConfigError, OSError, ValueError) as error:
        print(visible(f"The cells could not be compared: {sentence(error)}"), file=sys.stderr)


def _outcome(job: JobReturn) -> Outcome:
    try:
        outcome = job.return_value
    except Exception as error:  # Of the launcher, before the cell started.
        return Outcome(state="failed", reason=sentence(error))
    assert isinstance(outcome, Outcome)
    return outcome


def _shown(words: Sequence[str]) -> str:
    return " ".join(word.lstrip("+") for word in words)
