"""From a command line to a run: Hydra composes the configuration, `resolve` checks it, `percasym.app.run` does the work.

Unlike a bare Hydra application, every mistake of the user ends as one sentence on stderr with exit code 2 and leaves no directory
behind; only a defect of the program shows a traceback. Each cell of a sweep is this command for that cell alone, in its own process.
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

from percasym.config.escaping import sentence as one_line
from percasym.config.redaction import redact_tracebacks, redacted, redacted_output
from percasym.config.resolve import force_options, resolve, sentence
from percasym.config.schema import ConfigError
from percasym.config.settings import require_engine
from percasym.launch import torchrun
from percasym.launch.sweep import sweeper
from percasym.launch.sweep.cell_process import FAILED, INTERRUPTED, REASON_FILE, REFUSED, STUDY, run_cell
from percasym.launch.torchrun import RankFailedError
from percasym.launch.worker import die_with_parent
from percasym.runs.requests import SAVES, Interrupted
from percasym.runs.space import refusal

if TYPE_CHECKING:
    from percasym.config.settings import Settings
    from percasym.launch.sweep.cell_process import Outcome


NAME = "config"
"""The primary configuration, conf/config.yaml."""


def main(train: Callable[[], None], conf: Path, argv: Sequence[str]) -> int:
    """Run the Hydra application `train` on `argv`; returns the exit code."""
    redact_tracebacks()
    with redacted_output():
        return _main(train, conf, argv)


def _main(train: Callable[[], None], conf: Path, argv: Sequence[str]) -> int:
    if study := os.environ.get(STUDY):
        die_with_parent()
        if os.getppid() != int(study):  # The sweeping process ended before die_with_parent took effect.
            return INTERRUPTED
    if undecodable := [word for word in argv if any("\udc80" <= letter <= "\udcff" for letter in word)]:
        shown = undecodable[0].encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        message = f"{shown!a} has letters that this locale ({sys.getfilesystemencoding()}) cannot read. Set PYTHONUTF8=1."
        return _report(message, REFUSED)
    argv, local_rank = without_local_rank(argv)
    if local_rank:
        os.environ.setdefault("LOCAL_RANK", local_rank)
    if wrong := wrong_flags(argv):
        return _report(wrong, REFUSED)
    sys.argv = [sys.argv[0], *force_options(argv, conf)]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them over many lines.
    signal.signal(SAVES, signal.SIG_IGN)  # Its default action would end a process that has no handler yet; child processes inherit this.
    sweeper.register()
    try:
        train()
    except KeyboardInterrupt:
        return _report("Interrupted before the run began.", INTERRUPTED)
    except SystemExit as done:
        return int(done.code or 0)
    except Exception as error:  # `job` raises SystemExit only: this error is Hydra's, about the command line.
        return _report(sentence(error), REFUSED)
    return 0


def without_local_rank(argv: Sequence[str]) -> tuple[list[str], str | None]:
    """The words without `--local_rank N`, which the launcher `deepspeed` adds, and N: what torchrun calls LOCAL_RANK.

    >>> without_local_rank(["--local_rank=3", "task=sudoku"]), without_local_rank(["--local-rank", "3"]), without_local_rank(["seed=1"])
    ((['task=sudoku'], '3'), ([], '3'), (['seed=1'], None))
    """
    words, rest, local_rank = list(argv), list[str](), None
    while words:
        flag, equals, value = (word := words.pop(0)).partition("=")
        if flag not in ("--local_rank", "--local-rank"):
            rest.append(word)
            continue
        local_rank = value if equals or not words else words.pop(0)
    return rest, local_rank


def wrong_flags(argv: Sequence[str]) -> str | None:
    """A sentence about wrong flags among these words; None where there are none.

    Flags that replace conf/config.yaml, whose searchpath may name packages, or that load a pickle are refused.
    """
    output = StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(output):
            given = get_args_parser().parse_args(list(argv))
    except SystemExit as done:
        said = output.getvalue().rpartition("error: ")[2].strip()
        return f"{said}. `python train.py --hydra-help` says which flags there are." if done.code else None
    if given.experimental_rerun is not None:
        return "--experimental-rerun loads a pickle, which could call anything. Give the words of the command line again."
    if given.config_path is not None or given.config_name not in (None, NAME):
        return "train.py composes conf/config.yaml, so --config-path and --config-name have no use. Give your own files with --config-dir."
    return None


def job(cfg: DictConfig, script: Path | None) -> Outcome | None:
    """One run of a composed configuration; raises SystemExit unless it ends well. For a cell of a sweep, returns its outcome.

    `script` is the file that cells run: train.py, or None for that of an installed package (`percasym.launch.train`).
    """
    composed = HydraConfig.get()
    path = Path(composed.runtime.output_dir)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())  # Shorter in messages.
    if composed.mode == RunMode.MULTIRUN:
        return run_cell(cell_command(composed, script, path), path)
    try:
        if not str(composed.run.dir).strip():  # Hydra takes it for the current folder.
            raise ConfigError("hydra.run.dir is empty. Name a folder, or leave it out.")
        settings = resolve(cfg, choices=composed.runtime.choices, path=path)
        start(settings)
    except ConfigError as error:
        _refuse(error, path)
    except KeyboardInterrupt as stop:
        code = stop.code if isinstance(stop, Interrupted) else INTERRUPTED
        sys.exit(_report(f"Interrupted. The same command resumes {path}.", code))
    except OSError as error:
        if reason := refusal(path, error):  # About a cache, say; run_context has handled errors of the run directory.
            _refuse(ConfigError(reason), path)
        _defect(error)
    except RankFailedError as error:  # Its traceback is in the run's failure.log.
        sys.exit(_report(str(error), FAILED))
    except Exception as error:
        _defect(error)
    return None


def cell_command(composed: HydraConf, script: Path | None, path: Path) -> list[str]:
    """The command that runs one cell of a sweep by itself, at `path`; `composed` is Hydra's part of its configuration."""
    folders = [source.path for source in composed.runtime.config_sources if source.provider == "command-line"]
    flags = [f"--config-name={composed.job.config_name}", *(f"--config-dir={folder}" for folder in folders)]
    quoted = str(path).replace("'", r"\'")
    start = ["-m", "percasym.launch.train"] if script is None else [str(script)]
    return [sys.executable, *start, *flags, *composed.overrides.task, "hydra.mode=RUN", f"hydra.run.dir='{quoted}'"]


def start(settings: Settings) -> None:
    """Run in this process, alone or as one rank of an outer launcher; or start the ranks that `launch.*` requests."""
    require_engine(settings.engine)
    num_ranks, outer = settings.launch.num_ranks, os.environ.get("WORLD_SIZE", "1")
    if num_ranks == 1:
        gc.disable()  # Imports create a million permanent objects; scanning them for garbage takes a tenth of the import time.
        from percasym.app import run as app  # Imports torch: only after the configuration was checked.

        gc.freeze()  # Exclude them from later scans too.
        gc.enable()
        return app.run(settings)
    if outer != "1":
        raise ConfigError(f"launch asks for {num_ranks} processes, and this is one of {outer} that torchrun started. Leave launch.* out.")
    try:
        settings.paradigm.rows_per_forward(num_ranks)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return torchrun.run(settings)


def _refuse(error: ConfigError, path: Path) -> NoReturn:
    """Print the reason and remove the empty directories that Hydra made for the run."""
    with suppress(OSError):  # Raised by the first directory that is not empty.
        for directory in (path, *path.parents):
            if directory.samefile(Path.cwd()):
                break
            directory.rmdir()
    sys.exit(_report(str(error), REFUSED))


def _defect(error: Exception) -> NoReturn:
    """Show the traceback, without Hydra's frames around it."""
    traceback.print_exception(error)
    _write_reason(f"{type(error).__name__}: {error}")
    sys.exit(FAILED)


def _report(text: str, code: int) -> int:
    reason = one_line(text)
    if not _write_reason(reason):
        print(reason, file=sys.stderr)
    return code


def _write_reason(sentence: str) -> bool:
    """Pass it to the study that started this process, which prints it; False where there is none."""
    if file := os.environ.get(REASON_FILE):
        Path(file).write_text(redacted(sentence), encoding="utf-8")
    return bool(file)
