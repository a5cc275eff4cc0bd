"""Where rows come from: a file of JSON lines, a folder of them, or the hub.

A row is named by its place, so that whoever made it can find it; what a row means is not known here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from percasym.tasks.given.item import Record

SPLITS = ("train_sft", "train_rl", "test")
"""The splits of a set of data; nothing is pretrained on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row before it is read."""

    where: str
    """Its place: "rows.jsonl, line 7"."""
    split: str | None
    """None where its content decides."""
    raw: bytes | Record | None
    """JSON, or columns; None for a line over the limit."""

    @property
    def record(self) -> Record:
        """Its columns.

        Raises ValueError when it is no JSON object.
        """
        if self.raw is None:
            raise ValueError("it is longer than task.max_bytes.")
        if not isinstance(self.raw, bytes):
            return self.raw
        try:
            record = json.loads(self.raw)
        except ValueError as error:  # JSONDecodeError, UnicodeDecodeError
            raise ValueError(f"it is not JSON ({error}).") from None
        except RecursionError:
            raise ValueError("it is nested too deeply.") from None
        if not isinstance(record, dict):
            raise ValueError(f"it is no JSON object, got {type(record).__name__}.")
        return record


def lines(path: Path, *, max_bytes: int, split: str | None = None) -> Iterator[Row]:
    """The lines of a file that are not blank; of a line over the limit nothing is kept.

    Raises ValueError when there is no such file.
    """
    if not path.is_file():
        raise ValueError(f"There is no file {path}. Give task.path a file of JSON lines.")
    with path.open("rb") as file:
        for number in count(1):
            line = file.readline(max_bytes + 1)
            if not line:
                return
            fits = len(line) <= max_bytes or line.endswith(b"\n")
            while not line.endswith(b"\n") and (more := file.readline(max_bytes)):
                line = more
            if not fits or line.strip():
                yield Row(where=f"{path}, line {number}", split=split, raw=line if fits else None)


def released(path: str, *, max_bytes: int) -> Iterator[Row]:
    """The rows of a set in the paper's form: a folder with <split>.jsonl, or whatever `datasets` loads (a hub id, a folder of parquet).

    Raises ValueError when `datasets` is needed and not installed, or cannot load it.
    """
    folder = Path(path).expanduser()
    files = {split: folder / f"{split}.jsonl" for split in SPLITS}
    if any(file.is_file() for file in files.values()):
        for split, file in files.items():
            if file.is_file():
                yield from lines(file, max_bytes=max_bytes, split=split)
        return
    for split, rows in _loaded(str(folder) if folder.exists() else path).items():
        if split in SPLITS:
            for number, record in enumerate(rows):
                yield Row(where=f"{path}, {split} row {number}", split=split, raw=record)


def _loaded(path: str) -> Any:
    """Splits by name; their pictures stay encoded."""
    try:
        from datasets import Image, load_dataset  # An optional package: only where it is needed.
    except ImportError:
        raise ValueError(
            f"task.path={path} holds no {'.jsonl, '.join(SPLITS)}.jsonl, and anything else needs the package datasets: "
            "pip install 'percasym[hub]'."
        ) from None
    try:
        return {split: rows.cast_column("image", Image(decode=False)) for split, rows in load_dataset(path).items()}
    except Exception as error:  # datasets raises many types for one cause: the set cannot be read.
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"task.path={path} could not be loaded ({type(error).__name__}: {reason}).") from error
