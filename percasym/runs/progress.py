"""Progress of a run: one live bar in a terminal, a plain line every ten seconds in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

SECONDS_BETWEEN_LINES = 10.0


class Rate(ProgressColumn):
    """Steps each second, or seconds each step when they are slow."""

    def render(self, task: Task) -> Text:
        """The rate of the last steps."""
        return Text(rate(task.finished_speed or task.speed), style="progress.data.speed")


class ProgressBar:
    """Progress of `total` steps, of which an earlier session did `start`; use as a context manager."""

    def __init__(
        self, total: int, title: str, start: int = 0, *, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.title, self.start = total, title, start
        self._console = console or Console(file=sys.stderr)
        self._clock = clock
        self._began = self._last_line = clock()
        self._bar: Bar | None = None

    def __enter__(self) -> Self:
        self._began = self._last_line = self._clock()
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                Rate(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[shown]}"),
            )
            self._bar = Bar(*columns, console=self._console, expand=True)
            self._task = self._bar.add_task(self.title, total=self.total, completed=self.start, shown="")
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, step: int, **shown: float) -> None:
        """`step` steps are done; `shown` are the numbers to display, by name."""
        numbers = " ".join(f"{name} {value:.3g}" for name, value in shown.items())
        if self._bar is not None:
            self._bar.update(self._task, completed=step, shown=numbers)
            return
        now = self._clock()
        if step >= self.total or now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._console.print(self._line(step, now - self._began, numbers), markup=False, highlight=False, soft_wrap=True)

    def _line(self, step: int, seconds: float, numbers: str) -> str:
        speed = (step - self.start) / seconds if seconds > 0 else None
        left = f", {duration((self.total - step) / speed)} left" if speed and step < self.total else ""
        return f"{self.title} {step}/{self.total} ({rate(speed)}{left}) {numbers}".rstrip()


def rate(speed: float | None) -> str:
    """A speed in steps per second, for display.

    >>> rate(3.25), rate(0.4), rate(None)
    ('3.2/s', '2.5 s each', '-/s')
    """
    if not speed:
        return "-/s"
    return f"{speed:.1f}/s" if speed >= 1 else f"{1 / speed:.1f} s each"


def duration(seconds: float) -> str:
    """A duration, for display.

    >>> duration(42), duration(150), duration(7260)
    ('42 s', '2 min 30 s', '2 h 01 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
