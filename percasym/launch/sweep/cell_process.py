"""One cell of a study in an interpreter of its own: nothing of it stays behind, and no way it ends takes the study with it.

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
from multiprocessing import parent_process
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from threading import Thread, current_thread, main_thread
from typing import IO

from percasym.launch.sweep.outcomes import Outcome
from percasym.runs.lock import writer
from percasym.runs.marks import stopped

LAST_WORDS = "PERCASYM_LAST_WORDS"
"""Environment variable: the file where a cell says in a sentence why it ends, for the study to tell."""
STUDY = "PERCASYM_STUDY"
"""Environment variable: the process that a cell belongs to, and ends with."""
FAILED, REFUSED, INTERRUPTED, TERMINATED = 1, 2, 130, 143
"""What a command answers: Python's code for a traceback, argparse's for a wrong command line, 128 + SIGINT, 128 + SIGTERM."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What stops a study, and its cell in good order."""
LAST_LINES_SECONDS = 5.0
"""How long the last lines of a cell may take after its end: a process that it left behind may hold its stderr open for ever."""


def apart(command: Sequence[str], path: Path) -> Outcome:
    """Carry out `command`, whose run directory is `path`, and wait for it.

    Raises KeyboardInterrupt when it was interrupted, by itself or with this process.
    """
    beside = parent_process() is not None  # This is a worker of a launcher: other cells run at the same time.
    with TemporaryDirectory(prefix="percasym-") as place, nullcontext() if beside else stoppable():
        said = Path(place) / "last_words"
        child = Popen(
            command, env=os.environ | {LAST_WORDS: str(said), STUDY: str(os.getpid())}, process_group=0, stderr=PIPE if beside else None
        )  # Ctrl-C reaches it through us, and once.
        lines = Thread(target=_forward, args=(child.stderr, f"{path.parent.name}/{path.name}"), daemon=True)
        if beside:
            lines.start()
        try:
            code = child.wait()
        except KeyboardInterrupt:
            _stop(child)
            raise
        finally:
            if beside:
                lines.join(LAST_LINES_SECONDS)
        if code in (INTERRUPTED, TERMINATED):
            raise KeyboardInterrupt
        if not code:
            return Outcome(state="done")
        reason = said.read_text(encoding="utf-8") if said.exists() else _unsaid(code)
    if code != REFUSED:  # What was refused may be the directory itself, because it is another run's.
        stopped(path, "failed", reason=reason)
    print(f"{path} failed: {reason}", file=sys.stderr, flush=True)
    return Outcome(state="failed", reason=reason)


def _forward(lines: IO[bytes], name: str) -> None:
    """Write what a cell says to stderr, each line with the cell's name in front."""
    with lines:
        for line in lines:
            print(f"{name}: {line.decode(errors='replace').rstrip()}", file=sys.stderr, flush=True)


def _unsaid(code: int) -> str:
    if code > 0:
        return f"it ended with exit code {code}."
    memory = " (what the system does where memory runs out)" if -code == signal.SIGKILL else ""
    return f"it was ended by {signal.Signals(-code).name}{memory}."


def _stop(child: Popen[bytes]) -> None:
    """Let the run leave its directory in order; whoever interrupts again does not want to wait for it."""
    child.send_signal(signal.SIGINT)
    try:
        child.wait()
    except KeyboardInterrupt:
        child.kill()
        child.wait()


def end_in_order(paths: Iterable[Path]) -> None:
    """Interrupt the runs of this machine that are at work in `paths`, and wait until they have left their directories in order.

    A launcher that holds its workers as processes of its own (joblib) kills them at once when it is interrupted, and their cells with them.
    """
    working = {path: pid for path in paths if (pid := writer(path)) is not None}
    for pid in working.values():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
    while any(writer(path) == pid for path, pid in working.items()):
        time.sleep(0.1)


@contextmanager
def stoppable(first: Callable[[], object] | None = None) -> Iterator[None]:
    """Make a KeyboardInterrupt of whatever stops this process, so that no cell outlives it; a second one does not wait for `first`.

    What nohup made it ignore stays ignored; SIGINT does not, for a cell would inherit that and never be stopped.
    """
    heard = [number for number in STOPS if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    if current_thread() is not main_thread():  # Python takes signals there only.
        heard = []
    due = [first] if first else []

    def interrupt(signum: int, frame: object) -> None:
        if due:
            due.pop()()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_to_the_study() -> None:
    """Let a worker of a launcher do nothing about what stops a study: a terminal sends it to all processes of the study at once.

    The sweeping process gets them too and interrupts each cell once: a second time would end it without a checkpoint, and a worker that
    dies takes the others and their cells with it. The handler is a function, for a cell would inherit an ignored signal.
    """
    for number in STOPS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _nothing)


def _nothing(signum: int, frame: object) -> None:
    pass
