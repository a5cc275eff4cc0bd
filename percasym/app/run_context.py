"""The context in which a run is written: one writing process, signal handlers, and a final status, however the work ends.

The run directory is locked, and its disk checked for room, before the first file is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from percasym.config.schema import ConfigError
from percasym.config.settings import Settings
from percasym.engine.ranks import Ranks
from percasym.runs.base import NullRun, Run
from percasym.runs.checkpoint import Retention
from percasym.runs.lock import sole_writer
from percasym.runs.requests import Stopped, signal_handler
from percasym.runs.rundir import RunDirectory
from percasym.runs.space import Needs, refusal, require_room_for_run
from percasym.training.divergence import TrainingDivergedError


@contextmanager
def run_context(settings: Settings, ranks: Ranks, *, about: Mapping[str, Any], needs: Needs | None = None) -> Iterator[Run]:
    """The run directory, locked and with signals handled while the block runs; above rank 0, a run that writes nothing.

    `needs` is what the run will write, for which its disk must have room.

    Sets the status `interrupted` or `failed` when the block does not end well.
    Raises ConfigError for what the user can fix: another run or process in the directory, a full or unwritable disk, divergence.
    """
    with ExitStack() as stack:
        try:
            directory = NullRun(settings.path) if ranks.rank else _open(settings, about, needs, stack)
        except (ValueError, OSError) as error:
            if reason := str(error) if isinstance(error, ValueError) else refusal(settings.path, error):
                raise ConfigError(reason) from error
            raise
        try:
            with signal_handler(directory.requests.handle):
                yield directory
        except Stopped:
            directory.interrupted()
            ranks.barrier()  # The launcher takes a rank that exits early for a failed one, and ends all others.
            raise
        except KeyboardInterrupt:
            directory.interrupted()
            raise
        except Exception as error:
            reason = str(error) if isinstance(error, TrainingDivergedError) else refusal(settings.path, error)
            with suppress(OSError):  # A disk that is gone, or can only be read, takes no status; the run then counts as interrupted.
                directory.failed(reason or f"{type(error).__name__}: {error}")
            if reason:
                raise ConfigError(reason) from error
            raise


def _open(settings: Settings, about: Mapping[str, Any], needs: Needs | None, stack: ExitStack) -> RunDirectory:
    if needs:
        require_room_for_run(settings.path, needs)
    stack.enter_context(sole_writer(settings.path))
    directory = RunDirectory.open(  # Reads the directory again: under the lock, no other process can change it.
        settings.path,
        settings.record,
        settings.run.overwrite,
        about=about,
        tracker=settings.tracker,
        keep=Retention(last=settings.run.keep_last, best="eval/end_to_end" if settings.run.keep_best else ""),
    )
    directory.final_bytes = needs.final_bytes if needs else None
    return directory
