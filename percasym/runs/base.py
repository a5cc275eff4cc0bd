"""What a run directory is to the code that trains and evaluates: one protocol, for rank 0's directory and the other ranks' null run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from percasym.runs.requests import Requests


class Bar(Protocol):
    """A progress bar; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: Any) -> None: ...

    def advance(self, step: int, **shown: float) -> None:
        """`step` steps are done; `shown` are the numbers to show now."""
        ...


class Run(Protocol):
    """Metrics, samples and checkpoints of one run. Rank 0 writes them (`RunDirectory`), the other ranks write nothing (`NullRun`)."""

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
        """Sentences for the user who resumes the run."""
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

    def progress(self, total: int, title: str, start: int = 0) -> Bar:
        """A progress bar, shown while its block runs."""
        ...

    def checkpoint(self, step: int, save: Callable[[Path], None]) -> object:
        """Let `save` fill the checkpoint of a step; every rank writes its part of the optimizer state."""
        ...

    def latest_checkpoint(self) -> tuple[int, Path] | None:
        """Step and path of the newest whole checkpoint; None where there is none, and above rank 0."""
        ...

    def final(self, save: Callable[[Path], None]) -> object:
        """Let `save` fill final/, the trained model."""
        ...

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json and mark the run as done."""
        ...

    def interrupted(self) -> None:
        """Mark the run as interrupted; the same command resumes it."""
        ...

    def failed(self, reason: str) -> None:
        """Mark the run as failed, with the reason."""
        ...
