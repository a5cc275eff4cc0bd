"""Signals to a run: recorded by the handler, acted on between two optimizer steps.

SIGINT, SIGTERM    finish the step, write a checkpoint, exit        exit codes 130, 143
a second one       exit at once
SIGUSR1            write a checkpoint after the step, continue
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread

STOPS = (signal.SIGINT, signal.SIGTERM)
"""Signals that stop a run; SLURM sends SIGTERM to a job that it preempts."""
SAVES = signal.SIGUSR1
"""Signal that requests a checkpoint."""


class Interrupted(KeyboardInterrupt):
    """A signal stops the run at once."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def code(self) -> int:
        """The exit code that shells use for it."""
        return 128 + self.signum


class Stopped(Interrupted):
    """A signal stopped the run between two steps; with many ranks, on all of them."""


class Requests:
    """Signals that this process received and has not acted on."""

    def __init__(self) -> None:
        self.stop = 0
        """The signal that stops the run; 0 while there is none."""
        self._save = False

    def take(self) -> tuple[int, int, int]:
        """Whether SIGINT, SIGTERM, and SIGUSR1 since the last call, were received: 0 or 1 each, so that ranks can sum them."""
        save, self._save = self._save, False
        return int(self.stop == signal.SIGINT), int(self.stop == signal.SIGTERM), int(save)

    def handle(self, signum: int, frame: object = None) -> None:
        """The signal handler. Raises Interrupted for the second signal that stops."""
        if signum == SAVES:
            self._save = True
        elif self.stop:
            raise Interrupted(signum)
        else:
            self.stop = signum


@contextmanager
def signal_handler(handle: Callable[[int, object], None]) -> Iterator[None]:
    """Install `handle` for STOPS and SAVES while the block runs; no-op outside the main thread, where Python allows no handlers."""
    numbers = (*STOPS, SAVES) if current_thread() is main_thread() else ()
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
