"""The ranks of one run: started together, watched, and stopped together.

PyTorch's elastic agent (what `torchrun` is made of) starts one `percasym.launch.worker` a rank and ends all when one fails;
this file hands them the resolved configuration and turns what became of them into one sentence.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from percasym.config.schema import ConfigError, dump
from percasym.config.settings import Launch, Settings
from percasym.launch.worker import JOB, STOPPED
from percasym.runs.marks import stopped
from percasym.runs.requests import STOPS, Interrupted, Stopped, hearing
from percasym.runs.rundir import FAILURE

SECONDS_TO_STOP = 10
"""From the first failure until the other ranks are killed, where they do not go by themselves."""
AGENTS = (signal.SIGHUP, signal.SIGQUIT)
"""What the agent catches: it ends the ranks at once."""


class RankFailedError(RuntimeError):
    """A rank ended by a defect, or was killed; its traceback is in the run's failure.log."""


def run(settings: Settings) -> None:
    """Carry out a run on as many ranks as `settings.launch` says; returns when all are done.

    Raises ConfigError when a rank refuses, Stopped when a signal stopped them in good order and Interrupted when at once,
    RankFailedError otherwise.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    with tempfile.TemporaryDirectory(prefix="percasym-") as name, _quietly():
        place = Path(name)
        config = {**settings.record, "run": dump(settings.run)}
        job = {"config": config, "path": str(settings.path), "argv": sys.argv, "sys_path": sys.path}
        (place / JOB).write_text(json.dumps(job), encoding="utf-8")
        asked = Forwarded(place, settings.launch.nproc)
        try:
            with hearing(asked.hear):
                elastic_launch(_config(settings, place), sys.executable)("-m", "percasym.launch.worker", name)
        except SignalException as stop:
            stopped(settings.path, "interrupted")
            raise Interrupted(stop.sigval) from stop
        except ChildFailedError as error:
            if asked.stop:
                stopped(settings.path, "interrupted")
                raise Interrupted(asked.stop) from error
            rank, failure = error.get_first_failure()
            found = _reports(place)
            if found and found[0]["refused"]:
                raise ConfigError(found[0]["sentence"]) from error
            what = f"Rank {found[0]['rank']} failed: {found[0]['sentence']}" if found else f"Rank {rank} was stopped: {failure.message}"
            raise RankFailedError(_told(settings.path, what.rstrip("."), found, place)) from error
        if (place / STOPPED).exists():
            raise Stopped(int((place / STOPPED).read_text(encoding="utf-8")))


class Forwarded:
    """Signals on their way to the ranks of this machine, which live in sessions of their own and hear none of a terminal."""

    def __init__(self, place: Path, num_ranks: int) -> None:
        self.stop = 0
        """The signal that asked to stop; 0 while none did."""
        self._place, self._num_ranks = place, num_ranks

    def hear(self, signum: int, frame: object) -> None:
        """A signal's handler. Raises SignalException, at which the agent ends all ranks, for the second one that stops."""
        from torch.distributed.elastic.multiprocessing import SignalException

        stops, pids = signum in STOPS, [int(path.read_text(encoding="utf-8")) for path in self._place.glob("rank*.pid")]
        if stops and (self.stop or len(pids) < self._num_ranks):  # Again, or before there is anything to leave in order.
            raise SignalException("stopped by its user", signal.Signals(signum))
        self.stop = signum if stops else self.stop
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signum)


def _config(settings: Settings, place: Path) -> Any:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.launcher.api import LaunchConfig

    launch: Launch = settings.launch
    alone = launch.nnodes == 1
    return LaunchConfig(
        min_nodes=launch.nnodes,
        max_nodes=launch.nnodes,
        nproc_per_node=launch.nproc,
        run_id="-".join(settings.path.parts),  # The same on all machines.
        rdzv_backend="c10d",
        rdzv_endpoint=launch.rendezvous or "localhost:0",
        local_addr="localhost" if alone else None,
        max_restarts=0,
        shutdown_timeout=SECONDS_TO_STOP,
        signals_to_handle=",".join(number.name for number in AGENTS),
        logs_specs=DefaultLogsSpecs(log_dir=str(place / "logs"), redirects=dict.fromkeys(range(1, launch.nproc), Std.ALL)),
    )


def _reports(place: Path) -> list[dict[str, Any]]:
    """What stopped ranks, the first first: the others only miss it."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in place.glob("rank*.json")]
    return sorted(found, key=lambda report: report["at"])


def _told(path: Path, sentence: str, found: list[dict[str, Any]], place: Path) -> str:
    """The sentence for the screen, once all that the ranks said lies in the run directory; where there is none, it is on the screen too."""
    parts = [f"Rank {report['rank']}, {datetime.fromtimestamp(report['at'], UTC).isoformat()}:\n{report['traceback']}" for report in found]
    for log in sorted(place.rglob("std*.log")):
        parts.append(f"Local rank {log.parent.name}, {log.stem}:\n{log.read_text(encoding='utf-8', errors='replace')}")
    said = "\n".join(parts)
    if not stopped(path, "failed", reason=sentence):
        print(said, file=sys.stderr)
        return f"{sentence}. The run had not begun."
    (path / FAILURE).write_text(said, encoding="utf-8")
    return f"{sentence}. What the ranks said is in {path / FAILURE}; the same command resumes."


@contextmanager
def _quietly() -> Iterator[None]:
    """Leave logging and signals as they were: the agent talks of its own and catches signals for good."""
    handlers = {number: signal.getsignal(number) for number in AGENTS}
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        for number, handler in handlers.items():
            signal.signal(number, handler)
