"""A rank that works on a run and writes nothing of it: the calls of `Run`, without the files.

Checkpoints are the exception: there each rank writes its own part, beside what rank 0 writes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from percasym.runs.checkpoint import partial, place
from percasym.runs.progress import ProgressBar
from percasym.runs.requests import Requests


class NullRun:
    """What a run directory is to every rank but the first."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.remarks: Sequence[str] = ()
        self.requests = Requests()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Nothing."""

    def samples(self, split: str, step: int, records: Iterable[object]) -> None:
        """Nothing."""

    def read_samples(self, split: str, step: int) -> None:
        """Nothing: rank 0 reads, and tells."""

    def logged(self, name: str) -> None:
        """Nothing: rank 0 reads, and tells."""

    def latest_checkpoint(self) -> None:
        """Nothing: rank 0 looks, and tells."""

    def progress(self, total: int, title: str, start: int = 0) -> ProgressBar:
        """A bar that nobody sees."""
        return ProgressBar(total, title, start, console=Console(file=io.StringIO()))

    def checkpoint(self, step: int, save: Callable[[Path], None]) -> None:
        """Let `save` write where rank 0 is writing; it waits until that place is there."""
        save(partial(place(self.path / "checkpoints", step)))

    def final(self, save: Callable[[Path], None]) -> None:
        """Nothing."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Nothing."""

    def interrupted(self) -> None:
        """Nothing."""

    def failed(self, reason: str) -> None:
        """Nothing."""
