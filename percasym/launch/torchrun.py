"""Start the ranks of one run on this machine (`launch.nproc=8`), with PyTorch's elastic agent, as `torchrun` does.

The agent starts one `percasym.launch.worker` for each rank and ends all when one fails. Unlike `torchrun`, the ranks get the resolved
configuration, signals are forwarded so that they write a checkpoint, and a failure is one sentence that names the rank.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from percasym.config.redaction import redacted
from percasym.config.schema import ConfigError, dump
from percasym.config.settings import Launch, Settings
from percasym.launch.worker import JOB, STOPPED
from percasym.runs.identity import mark_ended
from percasym.runs.requests import STOPS, Interrupted, Stopped, signal_handler
from percasym.runs.rundir import FAILURE

SECONDS_TO_STOP = 10
"""From the first failure until the other ranks are killed, if they have not ended by then."""
ANNOUNCED_SECONDS = 10.0
"""How long a launcher waits for the other machines before it says so."""
AGENTS = (signal.SIGHUP, signal.SIGQUIT)
"""Signals that the agent handles: it ends the ranks at once."""


class RankFailedError(RuntimeError):
    """A rank failed by a defect, or was killed; its traceback is in the run's failure.log."""


def run(settings: Settings) -> None:
    """Start the ranks that `settings.launch` requests and wait for all of them.

    Raises ConfigError when a rank does, Stopped when a signal stopped them after a checkpoint, Interrupted when at once, RankFailedError
    otherwise.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    with tempfile.TemporaryDirectory(prefix="percasym-") as name, _quietly():
        folder = Path(name)
        config = {**settings.record, "run": dump(settings.run)}
        job = {"config": config, "path": str(settings.path), "argv": sys.argv, "sys_path": sys.path}
        (folder / JOB).write_text(json.dumps(job), encoding="utf-8")
        signals = SignalForwarder(folder, settings.launch.nproc)
        try:
            with signal_handler(signals.handle), _announced(settings.launch, folder):
                elastic_launch(_config(settings, folder), sys.executable)("-m", "percasym.launch.worker", name)
        except SignalException as stop:
            mark_ended(settings.path, "interrupted")
            raise Interrupted(stop.sigval) from stop
        except ChildFailedError as error:
            if signals.stop:
                mark_ended(settings.path, "interrupted")
                raise Interrupted(signals.stop) from error
            rank, failure = error.get_first_failure()
            reports = _reports(folder)
            if reports and reports[0]["refused"]:
                raise ConfigError(reports[0]["sentence"]) from error
            first = reports[0] if reports else None
            if first is None:
                cause = f"Rank {rank} was stopped: {failure.message}"
            else:
                cause = first["sentence"] if first["frozen"] else f"Rank {first['rank']} failed: {first['sentence']}"
            raise RankFailedError(_record_failure(settings.path, cause.rstrip("."), reports, folder)) from error
        if (folder / STOPPED).exists():
            raise Stopped(int((folder / STOPPED).read_text(encoding="utf-8")))


class SignalForwarder:
    """Forwards signals to the ranks of this machine, which have sessions of their own and receive none from a terminal."""

    def __init__(self, folder: Path, num_ranks: int) -> None:
        self.stop = 0
        """The signal that stops the run; 0 while there is none."""
        self._folder, self._num_ranks = folder, num_ranks

    def handle(self, signum: int, frame: object) -> None:
        """The signal handler. For the second signal that stops, raises SignalException, on which the agent ends all ranks."""
        from torch.distributed.elastic.multiprocessing import SignalException

        stops, pids = signum in STOPS, [int(path.read_text(encoding="utf-8")) for path in self._folder.glob("rank*.pid")]
        if stops and (self.stop or len(pids) < self._num_ranks):  # The second one, or before all ranks have started.
            raise SignalException("stopped by its user", signal.Signals(signum))
        self.stop = signum if stops else self.stop
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signum)


def _config(settings: Settings, folder: Path) -> Any:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.launcher.api import LaunchConfig

    launch: Launch = settings.launch
    return LaunchConfig(
        min_nodes=launch.nnodes,
        max_nodes=launch.nnodes,
        nproc_per_node=launch.nproc,
        run_id="-".join(settings.path.parts),  # Equal on all machines.
        rdzv_backend="c10d",
        rdzv_endpoint=launch.rendezvous or "localhost:0",
        local_addr="localhost" if launch.nnodes == 1 else None,
        max_restarts=0,
        shutdown_timeout=SECONDS_TO_STOP,
        signals_to_handle=",".join(number.name for number in AGENTS),
        logs_specs=DefaultLogsSpecs(log_dir=str(folder / "logs"), redirects=dict.fromkeys(range(1, launch.nproc), Std.ALL)),
    )


def _reports(folder: Path) -> list[dict[str, Any]]:
    """The failure reports of ranks in the order of time: the first is the cause, later ones are failed collectives."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("rank*.json")]
    return sorted(reports, key=lambda report: report["at"])


def _record_failure(path: Path, sentence: str, reports: list[dict[str, Any]], folder: Path) -> str:
    """Write tracebacks and output of the ranks to failure.log (to stderr where there is no run yet); returns the sentence to print."""
    parts = [
        f"Rank {report['rank']}, {datetime.fromtimestamp(report['at'], UTC).isoformat()}:\n{report['traceback']}" for report in reports
    ]
    for log in sorted(folder.rglob("std*.log")):
        parts.append(f"Local rank {log.parent.name}, {log.stem}:\n{log.read_text(encoding='utf-8', errors='replace')}")
    output = "\n".join(parts)
    if not mark_ended(path, "failed", reason=sentence):
        print(output, file=sys.stderr)
        return f"{sentence}. The run had not begun."
    (path / FAILURE).write_text(redacted(output), encoding="utf-8")
    return f"{sentence}. What the ranks said is in {path / FAILURE}; the same command resumes."


@contextmanager
def _announced(launch: Launch, folder: Path) -> Iterator[None]:
    """Say after ANNOUNCED_SECONDS that other machines are missing: until they come, the agent waits in silence and starts no rank."""

    def say() -> None:
        if not any(folder.glob("rank*.pid")):
            others = "another machine" if launch.nnodes == 2 else f"{launch.nnodes - 1} other machines"
            print(f"Waiting for {others} at {launch.rendezvous}. Give the same command on each.", file=sys.stderr, flush=True)

    timer = threading.Timer(ANNOUNCED_SECONDS, say)
    timer.daemon = True
    if launch.nnodes > 1:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence the agent's log and restore the signal handlers that it replaces."""
    handlers = {number: signal.getsignal(number) for number in AGENTS}
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        for number, handler in handlers.items():
            signal.signal(number, handler)
