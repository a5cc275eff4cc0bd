"""The run directory as training and evaluation see it: one protocol, written by rank 0 and a no-op on the other ranks.

`RunDirectory` (rundir.py) is the implementation of rank 0, `NullRun` that of all other ranks, so a training loop needs no `if rank == 0`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from rich.console import Console

from percasym.runs.checkpoint import checkpoint_path, partial_path
from percasym.runs.progress import ProgressBar
from percasym.runs.requests import Requests


class Bar(Protocol):
    """A progress bar; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: Any) -> None: ...

    def advance(self, step: int, **shown: float) -> None:
        """`step` steps are done; `shown` are the numbers to display."""
        ...


class Run(Protocol):
    """Metrics, samples and checkpoints of one run."""

    @property
    def path(self) -> Path:
        """The run directory."""
        ...

    @property
    def requests(self) -> Requests:
        """Signals that this rank received."""
        ...

    @property
    def remarks(self) -> Sequence[str]:
        """Sentences to print when the run is resumed."""
        ...

    @property
    def last_step(self) -> int | None:
        """The step of the last `log`; None before it."""
        ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Append the numbers of a step to metrics.jsonl."""
        ...

    def logged(self, name: str) -> Mapping[int, float] | None:
        """One number of metrics.jsonl by step; None above rank 0."""
        ...

    def samples(self, split: str, step: int, records: Sequence[Mapping[str, Any]]) -> object:
        """Write the records of one evaluation."""
        ...

    def read_samples(self, split: str, step: int) -> list[dict[str, Any]] | None:
        """The records of one evaluation; None where there are none, and above rank 0."""
        ...

    def warn(self, sentence: str) -> None:
        """Print a warning beside the progress bar."""
        ...

    def progress(self, total: int, title: str, start: int = 0) -> Bar:
        """A progress bar, shown while its block runs."""
        ...

    def checkpoint(self, step: int, save: Callable[[Path], None]) -> object:
        """Let `save` fill the checkpoint of a step; every rank writes its part of the optimizer state."""
        ...

    def settle(self) -> None:
        """Wait until the last checkpoint is complete."""
        ...

    def latest_checkpoint(self) -> tuple[int, Path] | None:
        """Step and path of the newest complete checkpoint; None where there is none, and above rank 0."""
        ...

    def final(self, save: Callable[[Path], None]) -> object:
        """Let `save` fill final/, the trained model."""
        ...

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json and set the status to `done`."""
        ...

    def interrupted(self) -> None:
        """Set the status to `interrupted`; the same command resumes the run."""
        ...

    def failed(self, reason: str) -> None:
        """Set the status to `failed`, with the reason."""
        ...


class NullRun:
    """The run of every rank above 0: writes nothing but this rank's part of each checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.remarks: Sequence[str] = ()
        self.requests = Requests()
        self.last_step: int | None = None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Note the step; writes nothing above rank 0."""
        self.last_step = step

    def samples(self, split: str, step: int, records: Sequence[object]) -> None:
        """No-op above rank 0."""

    def read_samples(self, split: str, step: int) -> None:
        """None above rank 0: rank 0 reads and broadcasts."""

    def logged(self, name: str) -> None:
        """None above rank 0: rank 0 reads and broadcasts."""

    def latest_checkpoint(self) -> None:
        """None above rank 0: rank 0 reads and broadcasts."""

    def warn(self, sentence: str) -> None:
        """No-op above rank 0."""

    def progress(self, total: int, title: str, start: int = 0) -> ProgressBar:
        """A progress bar without output."""
        return ProgressBar(total, title, start, console=Console(file=io.StringIO()))

    def checkpoint(self, step: int, save: Callable[[Path], None]) -> None:
        """Let `save` write into the directory that rank 0 is writing; `save` waits until it exists."""
        save(partial_path(checkpoint_path(self.path / "checkpoints", step)))

    def settle(self) -> None:
        """No-op above rank 0."""

    def final(self, save: Callable[[Path], None]) -> None:
        """No-op above rank 0."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """No-op above rank 0."""

    def interrupted(self) -> None:
        """No-op above rank 0."""

    def failed(self, reason: str) -> None:
        """No-op above rank 0."""
