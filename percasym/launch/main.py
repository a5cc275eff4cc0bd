"""From a command line to a run: Hydra composes, `resolve` checks, the app works.

Unlike a bare Hydra application, whatever the user got wrong ends as one sentence on stderr with exit
code 2, and leaves no directory behind; only a defect of the program shows a traceback. Each cell of a sweep
is this very command for that cell alone, in a process of its own.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from percasym.config.resolve import force_options, resolve, sentence
from percasym.config.schema import ConfigError
from percasym.launch import torchrun
from percasym.launch.sweep import sweeper
from percasym.launch.sweep.cell_process import FAILED, INTERRUPTED, LAST_WORDS, REFUSED, STUDY, apart
from percasym.launch.torchrun import RankFailedError
from percasym.launch.worker import die_with_the_launcher
from percasym.runs.requests import SAVES, Interrupted
from percasym.runs.space import refusal

if TYPE_CHECKING:
    from percasym.config.settings import Settings
    from percasym.launch.sweep.outcomes import Outcome


def main(train: Callable[[], None], conf: Path, argv: Sequence[str]) -> int:
    """Run the Hydra application `train` on `argv`; returns the exit code."""
    if study := os.environ.get(STUDY):
        die_with_the_launcher()
        if os.getppid() != int(study):  # Too late to be told.
            return INTERRUPTED
    if strange := [word for word in argv if any("\udc80" <= letter <= "\udcff" for letter in word)]:
        shown = strange[0].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return _say(f"{shown!a} has letters that this locale ({sys.getfilesystemencoding()}) cannot read. Set PYTHONUTF8=1.", REFUSED)
    if wrong := refused_flags(argv):
        return _say(f"{wrong}. `python train.py --hydra-help` says which flags there are.", REFUSED)
    sys.argv = [sys.argv[0], *force_options(argv, conf)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its own errors instead of printing them over many lines.
    signal.signal(SAVES, signal.SIG_IGN)  # It would end whatever does not listen yet; what is started here inherits that.
    sweeper.register()
    try:
        train()
    except KeyboardInterrupt:
        return _say("Interrupted before the run began.", INTERRUPTED)
    except SystemExit as done:
        return int(done.code or 0)
    except Exception as error:  # `job` lets none through: this one is Hydra's, about the command line.
        return _say(sentence(error), REFUSED)
    return 0


def refused_flags(argv: Sequence[str]) -> str | None:
    """What is wrong with the flags among these words, as Hydra says it below its usage; None where nothing is."""
    said = StringIO()
    try:
        with redirect_stdout(said), redirect_stderr(said):
            get_args_parser().parse_args(list(argv))
    except SystemExit as done:
        return said.getvalue().rpartition("error: ")[2].strip() if done.code else None
    return None


def job(cfg: DictConfig, script: Path) -> Outcome | None:
    """One run of a composed configuration; raises SystemExit unless it ends well. One cell of a sweep: what became of it."""
    composed = HydraConfig.get()
    path = Path(composed.runtime.output_dir)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())  # Shorter in what people read.
    if composed.mode == RunMode.MULTIRUN:
        return apart(alone(composed, script, path), path)
    try:
        if not str(composed.run.dir).strip():  # Hydra takes it for the folder where the command is given.
            raise ConfigError("hydra.run.dir is empty. Name a folder, or leave it out.")
        settings = resolve(cfg, choices=composed.runtime.choices, path=path)
        start(settings)
    except ConfigError as error:
        _refuse(error, path)
    except KeyboardInterrupt as stop:
        sys.exit(_say(f"Interrupted. The same command resumes {path}.", stop.code if isinstance(stop, Interrupted) else INTERRUPTED))
    except OSError as error:
        if reason := refusal(path, error):  # Of a cache, say; what concerns the run itself has been said above.
            _refuse(ConfigError(reason), path)
        _defect(error)
    except RankFailedError as error:  # Its traceback is in the run.
        sys.exit(_say(str(error), FAILED))
    except Exception as error:
        _defect(error)
    return None


def alone(composed: HydraConf, script: Path, path: Path) -> list[str]:
    """The command that runs one cell of a sweep by itself, at `path`; `composed` is Hydra's part of its configuration."""
    added = [source.path for source in composed.runtime.config_sources if source.provider == "command-line"]
    flags = [f"--config-name={composed.job.config_name}", *(f"--config-dir={folder}" for folder in added)]
    quoted = str(path).replace("'", r"\'")
    return [sys.executable, str(script), *flags, *composed.overrides.task, "hydra.mode=RUN", f"hydra.run.dir='{quoted}'"]


def start(settings: Settings) -> None:
    """Work in this process, alone or as the rank that an outer launcher made it; or start the ranks that `launch.*` asks for."""
    asked, outer = settings.launch.num_ranks, os.environ.get("WORLD_SIZE", "1")
    if asked == 1:
        gc.disable()  # Imports make a million objects that stay: to look for garbage among them takes a tenth of their time.
        from percasym.app import run as app  # Imports torch: only once the configuration is known to be good.

        gc.freeze()  # Nor is it looked for among them later.
        gc.enable()
        return app.run(settings)
    if outer != "1":
        raise ConfigError(f"launch asks for {asked} processes, and this is one of {outer} that torchrun started. Leave launch.* out.")
    try:
        settings.paradigm.rows_per_forward(asked)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return torchrun.run(settings)


def _refuse(error: ConfigError, path: Path) -> NoReturn:
    """Say why, and remove the empty directories that Hydra made for the run that will not be."""
    with suppress(OSError):  # Raised by the first directory that is not empty.
        for directory in (path, *path.parents):
            if directory.samefile(Path.cwd()):
                break
            directory.rmdir()
    sys.exit(_say(str(error), REFUSED))


def _defect(error: Exception) -> NoReturn:
    """Show the traceback, without Hydra's frames around it."""
    traceback.print_exception(error)
    _last_words(f"{type(error).__name__}: {error}")
    sys.exit(FAILED)


def _say(text: str, code: int) -> int:
    sentence = " ".join(text.split())
    if not _last_words(sentence):
        print(sentence, file=sys.stderr)
    return code


def _last_words(sentence: str) -> bool:
    """Leave them to the study that started this process to say; False where there is none."""
    if file := os.environ.get(LAST_WORDS):
        Path(file).write_text(sentence, encoding="utf-8")
    return bool(file)
