"""One cell of a study in an interpreter of its own: no state leaks to the next cell, and a crash ends that cell only.

Cells that a launcher runs side by side on one machine share its cores and its terminal. joblib sets OMP_NUM_THREADS of its workers to
max(1, cores // n_jobs), unless the user has set it, and a cell inherits that. What a cell writes to stderr (its progress) then reaches the
terminal line by line with its name in front; two live progress bars would overwrite each other.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing import parent_process
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from threading import Thread, current_thread, main_thread
from typing import IO, Literal

from percasym.config.escaping import visible
from percasym.config.files import read_json
from percasym.runs.identity import mark_ended
from percasym.runs.lock import writer

REASON_FILE = "PERCASYM_REASON_FILE"
"""Environment variable: the file where a cell writes in a sentence why it ends, for the study to print."""
STUDY = "PERCASYM_STUDY"
"""Environment variable: id of the sweeping process, with which its cells end."""
FAILED, REFUSED, INTERRUPTED, TERMINATED = 1, 2, 130, 143
"""Exit codes: Python's for a traceback, argparse's for a wrong command line, 128 + SIGINT, 128 + SIGTERM."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that stop a study, each of its cells with a checkpoint."""
LAST_LINES_SECONDS = 5.0
"""How long to wait for the last lines of a cell after its end: a process that it started may keep its stderr open forever."""

State = Literal["done", "skipped", "failed", "interrupted", "not begun"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a cell ended."""

    state: State
    reason: str = ""
    """Why it failed, in a sentence."""


def outcome_on_disk(path: Path) -> Outcome:
    """The outcome of a cell by its run directory, where no process reported one: the study was interrupted, or its launcher broke."""
    file = path / "meta.json"
    try:
        meta = read_json(file, links=False) if file.exists() else {}
    except ValueError as error:
        return Outcome(state="failed", reason=str(error))
    match meta.get("status") if isinstance(meta, dict) else None:
        case "done":
            return Outcome(state="done")
        case "failed":
            return Outcome(state="failed", reason=str(meta.get("reason", "")))
        case None:
            return Outcome(state="not begun")
        case _:  # `running` too: the process was killed before it could change the status.
            return Outcome(state="interrupted")


def run_cell(command: Sequence[str], path: Path) -> Outcome:
    """Run `command`, whose run directory is `path`, and wait for it.

    Raises KeyboardInterrupt when it was interrupted, by itself or with this process.
    """
    parallel = parent_process() is not None  # This is a worker of a launcher: other cells run at the same time.
    with TemporaryDirectory(prefix="percasym-") as folder, nullcontext() if parallel else stoppable():
        file = Path(folder) / "reason"
        child = Popen(
            command,
            env=os.environ | {REASON_FILE: str(file), STUDY: str(os.getpid())},
            process_group=0,  # A terminal's Ctrl-C does not reach it: this process interrupts it, once.
            stderr=PIPE if parallel else None,
        )
        lines = Thread(target=_forward, args=(child.stderr, f"{path.parent.name}/{path.name}"), daemon=True)
        if parallel:
            lines.start()
        try:
            code = child.wait()
        except KeyboardInterrupt:
            _stop(child)
            raise
        finally:
            if parallel:
                lines.join(LAST_LINES_SECONDS)
        if code in (INTERRUPTED, TERMINATED):
            raise KeyboardInterrupt
        if not code:
            return Outcome(state="done")
        reason = file.read_text(encoding="utf-8") if file.exists() else _reason(code)
    if code != REFUSED:  # A refused directory may be another run's.
        mark_ended(path, "failed", reason=reason)
    print(visible(f"{path} failed: {reason}"), file=sys.stderr, flush=True)
    return Outcome(state="failed", reason=reason)


def _forward(lines: IO[bytes], name: str) -> None:
    """Copy the stderr of a cell to ours, each line with the cell's name in front."""
    with lines:
        for line in lines:
            print(f"{name}: {line.decode(errors='replace').rstrip()}", file=sys.stderr, flush=True)


def _reason(code: int) -> str:
    if code > 0:
        return f"it ended with exit code {code}."
    memory = " (what the system does where memory runs out)" if -code == signal.SIGKILL else ""
    return f"it was ended by {signal.Signals(-code).name}{memory}."


def _stop(child: Popen[bytes]) -> None:
    """Interrupt the cell and wait until it has written its checkpoint; a second interrupt kills it."""
    child.send_signal(signal.SIGINT)
    try:
        child.wait()
    except KeyboardInterrupt:
        child.kill()
        child.wait()


def interrupt_runs(paths: Iterable[Path]) -> None:
    """Interrupt the processes of this machine that write the runs in `paths`, and wait until they have ended.

    A launcher that runs its workers as child processes (joblib) kills them when it is interrupted, and their cells with them.
    """
    running = {path: pid for path in paths if (pid := writer(path)) is not None}
    for pid in running.values():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
    while any(writer(path) == pid for path, pid in running.items()):
        time.sleep(0.1)


@contextmanager
def stoppable(first: Callable[[], object] | None = None) -> Iterator[None]:
    """Raise KeyboardInterrupt for every signal in STOPS, so that no cell outlives this process; the first signal calls `first` before.

    A signal that nohup ignores stays ignored; SIGINT does not, because a cell would inherit that and could not be stopped.
    """
    handled = [number for number in STOPS if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    if current_thread() is not main_thread():  # Python allows signal handlers there only.
        handled = []
    due = [first] if first else []

    def interrupt(signum: int, frame: object) -> None:
        if due:
            due.pop()()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_stops() -> None:
    """Make a worker of a launcher do nothing on the signals in STOPS, which a terminal sends to all processes of the study at once.

    The sweeping process receives them too and interrupts each cell once: a second signal would end a cell without a checkpoint, and a
    worker that dies takes the others and their cells with it. A handler that does nothing, not SIG_IGN, which cells would inherit.
    """
    for number in STOPS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _do_nothing)


def _do_nothing(signum: int, frame: object) -> None:
    pass
