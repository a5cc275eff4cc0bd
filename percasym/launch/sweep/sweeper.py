"""Hydra's side of a study: every cell is checked before the first one starts, finished ones are skipped, and what became of each is told.

Unlike Hydra's own sweeper, one cell that fails does not end the others, and cells need not be one product (`cells.py`). Where and
how many at once the cells run is the launcher's: `hydra/launcher=joblib`, `submitit_slurm`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from rich.console import Console

from percasym.config.resolve import force_options, resolve, sentence
from percasym.config.schema import ConfigError
from percasym.launch.sweep.cell_process import FAILED, INTERRUPTED, end_in_order, leave_to_the_study, stoppable
from percasym.launch.sweep.cells import expanded
from percasym.launch.sweep.outcomes import Outcome, on_disk, told
from percasym.runs.identity import is_done
from percasym.runs.marks import stopped
from percasym.runs.records import plain
from percasym.runs.study import Planned, enter

FINISHED = ("done", "skipped")
"""States of a cell whose run is finished."""
TARGET = "hydra_plugins.percasym.StudySweeper"
"""Its name in conf/hydra/sweeper/study.yaml: Hydra builds no plug-in from outside that package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A cell whose configuration is known to be good."""

    words: Sequence[str]
    folder: Path
    """Of its study."""
    name: str
    """Its directory in there."""
    done: bool
    """Whether it need not be run."""

    @property
    def path(self) -> Path:
        """Its run directory."""
        return self.folder / self.name


class StudySweeper(Sweeper):
    """`cells`: lines of command-line words; `params`: key -> what it is swept over in every cell."""

    config: DictConfig
    """Of the sweep: Hydra's part of it, and what the cells have in common."""

    def __init__(self, cells: Sequence[str], params: Mapping[str, Any]) -> None:
        self.cells, self.params = cells, params

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """What Hydra hands to a sweeper before `sweep`."""
        self.context, self.config = hydra_context, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        if hasattr(self.launcher, "joblib"):  # The arguments of joblib.Parallel, in the launcher of hydra-joblib-launcher.
            self.launcher.joblib |= _initialized()

    def sweep(self, arguments: list[str]) -> None:
        """Run the cells that are not done yet, `arguments` being the words of the command line.

        Raises ConfigError before anything is written where one of them cannot run, SystemExit where one fails or they are interrupted.
        """
        checked = self.checked(arguments)
        _enter(checked, {})
        waiting = [cell for cell in checked if not cell.done]
        outcomes = {cell.path: Outcome(state="skipped") for cell in checked if cell.done}
        code = 0
        try:
            with stoppable(first=lambda: end_in_order(cell.path for cell in waiting)):
                returns = self.launcher.launch([list(cell.words) for cell in waiting], initial_job_idx=0) if waiting else []
            outcomes |= {cell.path: _outcome(job) for cell, job in zip(waiting, returns, strict=True)}
        except KeyboardInterrupt:
            code = INTERRUPTED
        except Exception as error:  # The launcher's own: a worker of it that was killed, a cluster that refuses.
            code = FAILED
            print(f"{type(self.launcher).__name__} failed: {sentence(error)}", file=sys.stderr)
        outcomes = {cell.path: outcomes.get(cell.path) or on_disk(cell.path) for cell in checked}
        for path in (path for path, outcome in outcomes.items() if outcome.state == "interrupted"):
            stopped(path, "interrupted")  # A launcher that ends its workers by force gave theirs no time to say so.
        _enter(checked, outcomes)
        Console(highlight=False).print(*(told(folder, outcomes) for folder in _folders(checked)))
        if code != INTERRUPTED:
            for folder in _folders(checked):
                _compared([path for path, outcome in outcomes.items() if path.is_relative_to(folder) and outcome.state in FINISHED])
        if code == INTERRUPTED:
            print("Interrupted. The same command goes on with the study.", file=sys.stderr)
        elif any(outcome.state == "failed" for outcome in outcomes.values()):
            code = FAILED
        if code:
            sys.exit(code)

    def checked(self, arguments: Sequence[str]) -> list[Checked]:
        """The cells, each composed and resolved as it will be.

        Raises ConfigError where one cannot run, or two would be in each other's way.
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
            done = not settings.run.overwrite and is_done(settings.path, plain(settings.record))
        except Exception as error:  # Hydra's or ours, about the words.
            raise ConfigError(f"{sentence(error)} No cell was started; this one is {_shown(words)}.") from error
        return Checked(words=words, folder=folder, name=name, done=done)


def register() -> None:
    """Let Hydra find the sweeper under the name that it insists on."""
    Plugins.instance().class_name_to_class[TARGET] = StudySweeper


def _initialized() -> dict[str, Any]:
    """What makes workers of joblib leave the signals of a terminal to this process; nothing in releases that take no such argument."""
    from joblib import Parallel

    return {"initializer": leave_to_the_study} if "backend_kwargs" in signature(Parallel).parameters else {}


def _enter(cells: Sequence[Checked], outcomes: Mapping[Path, Outcome]) -> None:
    """Write down what the studies of these cells consist of, and which of the cells failed."""
    reasons = {path: outcome.reason for path, outcome in outcomes.items() if outcome.state == "failed"}
    for folder in _folders(cells):
        enter(folder, [Planned(name=c.name, words=tuple(c.words), reason=reasons.get(c.path)) for c in cells if c.folder == folder])


def _folders(cells: Sequence[Checked]) -> list[Path]:
    """More than one only where `study` itself is swept."""
    return list(dict.fromkeys(cell.folder for cell in cells))


def _compared(paths: Sequence[Path]) -> None:
    """Print the comparison of these finished runs; what keeps it from being made is one sentence, and no failure of the study."""
    from percasym.report.comparison_table import console, show  # Not needed by the cells, which import this module too.
    from percasym.report.load import load_run
    from percasym.report.study import study_of

    try:
        show(study_of(map(load_run, paths), ""), console())
    except (ConfigError, OSError, ValueError) as error:
        print(f"The cells could not be compared: {sentence(error)}", file=sys.stderr)


def _outcome(job: JobReturn) -> Outcome:
    try:
        outcome = job.return_value
    except Exception as error:  # On the launcher's way to the cell.
        return Outcome(state="failed", reason=sentence(error))
    assert isinstance(outcome, Outcome)
    return outcome


def _shown(words: Sequence[str]) -> str:
    return " ".join(word.lstrip("+") for word in words)
