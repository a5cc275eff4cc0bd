"""Work that a run need not wait for, one piece at a time: the checksums of a checkpoint, while the next steps train."""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread


class Background:
    """At most one piece of work in a thread of its own. The thread ends with the process: a killed run leaves its work half done."""

    def __init__(self) -> None:
        self._thread: Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], object]) -> None:
        """Begin `work`, after what was begun before."""
        self.wait()
        self._thread = Thread(target=self._do, args=(work,), name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self, seconds: float | None = None) -> None:
        """Wait until the work is done, at most so long. Raises what it raised, once."""
        if self._thread is None:
            return
        self._thread.join(seconds)
        if self._thread.is_alive():
            return
        self._thread, error, self._error = None, self._error, None
        if error is not None:
            raise error

    def _do(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error
