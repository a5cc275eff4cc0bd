"""Who writes a run directory, and what is said of it when the work ends: done, interrupted, or failed and why.

One process at a time, and a disk with room, before the first file; afterwards a mark, whatever ended the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from percasym.config.schema import ConfigError
from percasym.config.settings import Settings
from percasym.engine.ranks import Ranks
from percasym.runs.base import Run
from percasym.runs.identity import held_config, is_done, is_same_run
from percasym.runs.lock import sole_writer
from percasym.runs.null_run import NullRun
from percasym.runs.records import plain
from percasym.runs.requests import Stopped, hearing
from percasym.runs.retention import Retention
from percasym.runs.rundir import RunDirectory
from percasym.runs.space import refusal, require_room
from percasym.training.progress import TrainingDivergedError


def finished(settings: Settings) -> bool:
    """Whether the run directory holds this very run, done. Raises ConfigError when it holds another one."""
    if settings.run.overwrite or not (settings.path / "summary.json").exists():
        return False
    try:
        return is_done(settings.path, plain(settings.record))
    except ValueError as error:
        raise ConfigError(str(error)) from error


@contextmanager
def custody(settings: Settings, ranks: Ranks, *, about: Mapping[str, Any], checkpoint_bytes: int) -> Iterator[Run]:
    """The run directory while this process works on it: nobody else writes there, and signals are heard.

    Raises ConfigError for what its user can mend: another run or another process there, no room, a disk that refuses, divergence.
    """
    with ExitStack() as held:
        try:
            directory = NullRun(settings.path) if ranks.rank else _opened(settings, about, checkpoint_bytes, held)
        except (ValueError, OSError) as error:
            if reason := str(error) if isinstance(error, ValueError) else refusal(settings.path, error):
                raise ConfigError(reason) from error
            raise
        try:
            with hearing(directory.requests.hear):
                yield directory
        except Stopped:
            directory.interrupted()
            ranks.barrier()  # Whoever left now would be taken for dead, and all others be ended.
            raise
        except KeyboardInterrupt:
            directory.interrupted()
            raise
        except Exception as error:
            reason = str(error) if isinstance(error, TrainingDivergedError) else refusal(settings.path, error)
            with suppress(OSError):  # A full disk takes no mark either; without one, the run counts as interrupted.
                directory.failed(reason or f"{type(error).__name__}: {error}")
            if reason:
                raise ConfigError(reason) from error
            raise


def _opened(settings: Settings, about: Mapping[str, Any], checkpoint_bytes: int, held: ExitStack) -> RunDirectory:
    path = settings.path
    if not settings.run.overwrite:  # Refused before anything is written, the lock included.
        is_same_run(path, plain(settings.record))
    held_config(path)
    require_room(path, checkpoint_bytes, "A checkpoint")
    held.enter_context(sole_writer(path))
    return RunDirectory.open(
        path,
        settings.record,
        settings.run.overwrite,
        about=about,
        tracker=settings.tracker,
        keep=Retention(last=settings.run.keep_last, best="eval/end_to_end" if settings.run.keep_best else ""),
    )
