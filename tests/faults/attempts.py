"""Ways to start a command and to kill it: one rank as a copy of this process, many as processes of their own."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGETS = (None, "checkpoints/.step_*.partial", "checkpoints/.step_*.partial/DONE", ".final.partial")
"""What a kill waits for: nothing but time, or that this is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When to kill."""

    target: str | None
    """What must be there in the run directory; None for any time."""
    at_seconds: float
    """After the start, where nothing must be there; a little after it is there, otherwise."""

    @classmethod
    def drawn(cls, draw: random.Random, *, least: float, most: float) -> Moment:
        """Any moment between `least` and `most` seconds, or one of the targets and at most 10 ms."""
        target = draw.choice(TARGETS)
        return cls(target=target, at_seconds=draw.uniform(0, 0.01) if target else draw.uniform(least, most))

    def came(self, run: Path, ended: Callable[[], bool]) -> bool:
        """Wait for it; False when the process `ended` before."""
        began = time.monotonic()
        while (not list(run.glob(self.target))) if self.target else time.monotonic() - began < self.at_seconds:
            if ended():
                return False
            time.sleep(0.0005)
        time.sleep(self.at_seconds if self.target else 0)
        return True

    def __str__(self) -> str:
        return self.target or "any moment"


@dataclass(slots=True)
class Forked:
    """Attempts of one rank, each a copy of this process, which has imported all there is to import: a start takes no time."""

    words: Sequence[str]
    _pid: int = 0

    def begin(self, run: Path) -> None:
        """Start the command."""
        import train
        from percasym.app import run as app  # noqa: F401
        from percasym.launch import main as launch

        self._pid = os.fork()
        if self._pid == 0:
            log = os.open(f"{run.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.argv = [str(ROOT / "train.py")]
            os._exit(launch.main(train.train, train.CONF, [*self.words, f"hydra.run.dir={run}"]))

    def kill(self, run: Path, draw: random.Random, seconds: float) -> str | None:
        """Kill it at some moment; what that hit, or None if it ended before."""
        moment = Moment.drawn(draw, least=0, most=seconds)
        if not moment.came(run, lambda: os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None):
            return None
        os.kill(self._pid, signal.SIGKILL)
        ended = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
        if ended is None or ended.si_code != os.CLD_KILLED:
            return None
        os.waitpid(self._pid, 0)
        return str(moment)

    def finish(self) -> bool:
        """Wait for it; did it end well?"""
        return os.waitpid(self._pid, 0)[1] == 0


@dataclass(slots=True)
class Started:
    """Attempts of several ranks, each by its own command."""

    words: Sequence[str]
    _process: subprocess.Popen[bytes] = field(init=False)

    def begin(self, run: Path) -> None:
        """Start the command."""
        with Path(f"{run.name}.log").open("ab") as log:
            command = [sys.executable, str(ROOT / "train.py"), *self.words, f"hydra.run.dir={run}"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def kill(self, run: Path, draw: random.Random, seconds: float) -> str | None:
        """Kill a rank, the launcher, or all at some moment; what that hit, or None if it ended before. No rank outlives its launcher."""
        process = self._process
        moment = Moment.drawn(draw, least=0.3 * seconds, most=seconds)  # Before that, nothing but imports.
        if not moment.came(run, lambda: process.poll() is not None):
            return None
        ranks = children(process.pid)
        whom = draw.choice(["the launcher", "a rank", "all"] if ranks else ["the launcher"])
        chosen = {"the launcher": [process.pid], "a rank": ranks and [draw.choice(ranks)], "all": [process.pid, *ranks]}
        for pid in chosen[whom]:
            os.kill(pid, signal.SIGKILL)
        if process.wait() == 0:
            return None
        until = time.monotonic() + 5
        while any(alive(pid) for pid in ranks):
            assert time.monotonic() < until, f"ranks {ranks} outlive their launcher"
            time.sleep(0.01)
        return f"{moment}, {whom}"

    def finish(self) -> bool:
        """Wait for it; did it end well?"""
        return self._process.wait() == 0


def children(pid: int) -> list[int]:
    """The processes that a process started; none once it is gone."""
    try:
        return [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def alive(pid: int) -> bool:
    """Does a process run, neither gone nor waiting to be forgotten?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
