"""What the outside asks of a run at work, by signals: heard at once, answered between two steps.

SIGINT, SIGTERM    finish the step, write a checkpoint, stop        exit codes 130, 143
again              stop at once
SIGUSR1            write a checkpoint after the step, go on
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread

STOPS = (signal.SIGINT, signal.SIGTERM)
"""What stops a run; SLURM sends the second to a job that it preempts."""
SAVES = signal.SIGUSR1


class Interrupted(KeyboardInterrupt):
    """A signal stops the run at once."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum

    @property
    def code(self) -> int:
        """The exit code that shells give to it."""
        return 128 + self.signum


class Stopped(Interrupted):
    """A signal stopped the run between two steps; on many ranks, all of them."""


class Requests:
    """What was asked of this process and not yet answered."""

    def __init__(self) -> None:
        self.stop = 0
        """The signal that asks to stop; 0 while none does."""
        self._save = False

    def take(self) -> tuple[int, int, int]:
        """Was SIGINT heard, was SIGTERM, was SIGUSR1 since the last look? As 0 and 1, which ranks can add up."""
        save, self._save = self._save, False
        return int(self.stop == signal.SIGINT), int(self.stop == signal.SIGTERM), int(save)

    def hear(self, signum: int, frame: object = None) -> None:
        """A signal's handler. Raises Interrupted for the second one that stops."""
        if signum == SAVES:
            self._save = True
        elif self.stop:
            raise Interrupted(signum)
        else:
            self.stop = signum


@contextmanager
def hearing(hear: Callable[[int, object], None]) -> Iterator[None]:
    """While it lasts, these signals call `hear` in place of what they did before; Python allows that in the main thread only."""
    heard = (*STOPS, SAVES) if current_thread() is main_thread() else ()
    before = {number: signal.signal(number, hear) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
