"""What all tasks of collected rows share: where the data lie, the bounds of a row and its picture, and what a run records of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self

from percasym.config.files import inside
from percasym.config.schema import at_least, one_of
from percasym.tasks.base import RowCheck
from percasym.tasks.given.picture import ADDRESS, Limits, Look, Source, look
from percasym.tasks.given.rows import OfflineTable

OnError = Literal["raise", "skip"]
NUM_EXAMPLES = 3
"""Skipped rows whose reason is kept in the run directory; all are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected(ABC):
    """Rows that somebody collected, read into a table at first use."""

    path: str
    """A file or folder."""
    on_error: OnError = "raise"
    """Stop at the first bad row, or skip bad rows and count them."""
    max_bytes: int = 2**24
    """Of one row, and of one image file (our choice: 16 MiB)."""
    max_pixels: int = 2**24
    """Of one image; a larger one is resized to this area (our choice: 4,096 x 4,096)."""
    max_decoded_pixels: int = 2**26
    """Of one image; a larger one is refused before it is decoded (our choice: 8,192 x 8,192, 192 MiB decoded)."""
    allow_outside: bool = False
    """Read pictures outside the folder of the data, too; a path that a stranger wrote could name any file of this machine."""
    _check: RowCheck | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        one_of("task", OnError, on_error=self.on_error)
        if not self.path.strip():  # An unset shell variable.
            raise ValueError("task.path is empty. Name the file or folder of the data.")
        if ADDRESS.match(self.path):
            raise ValueError(f"task.path={self.path:.80} is a web address, and nothing is downloaded. Download it and name the file.")
        at_least("task", 1, max_bytes=self.max_bytes, max_pixels=self.max_pixels, max_decoded_pixels=self.max_decoded_pixels)
        if self.max_decoded_pixels < self.max_pixels:
            raise ValueError(
                f"task.max_decoded_pixels must be at least task.max_pixels={self.max_pixels}, got {self.max_decoded_pixels}: "
                "pictures are decoded before they are resized."
            )

    @property
    @abstractmethod
    def table(self) -> OfflineTable:
        """All items, read at first use and cached. Raises ValueError with the location of a bad row."""

    def about(self) -> Mapping[str, Any]:
        """What a run directory records of the data: path, rows of each split, skipped rows, fingerprint."""
        table = self.table
        rows = {split: len(items) for split, items in table.items.items()}
        skipped = {"skipped": len(table.skipped), "examples": list(table.skipped[:NUM_EXAMPLES])}
        return {"path": self.path, "rows": rows, **skipped, "notes": list(table.notes), "fingerprint": table.fingerprint}

    def checked(self, check: RowCheck) -> Self:
        """The same rows; those that `check` refuses end the command or are skipped, as `on_error` says."""
        return replace(self, _check=check)

    def look(self, picture: Source) -> Look:
        """Decode a picture for the check before training."""
        return look(picture, self._limits)

    def require_inside(self, picture: Source, folder: Path) -> None:
        """Raise ValueError for an image file outside the folder of the data, unless `allow_outside` permits it."""
        if not self.allow_outside and isinstance(picture, Path) and not inside(picture, folder):
            raise ValueError(f"its image {picture} lies outside {folder}. Move it there, or set task.allow_outside=true.")

    @property
    def _limits(self) -> Limits:
        return Limits(max_bytes=self.max_bytes, max_pixels=self.max_pixels, max_decoded_pixels=self.max_decoded_pixels)
