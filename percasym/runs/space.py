"""Disk space: checked before a checkpoint is written; write errors of a disk become one sentence.

A run keeps a small file in reserve, so that a disk that others have filled still takes its last status.
"""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from percasym.config.redaction import redacted
from percasym.runs.records import write_whole

ALMOST_FULL_BYTES = 2**20
"""With less free space a disk counts as full, whatever message the library that failed to write gave."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EEXIST)
"""Write errors that are not defects of percasym."""
FULL = (errno.ENOSPC, errno.EDQUOT)
RESERVE = ".reserve"
"""A file of a run that is being written: room for meta.json."""
RESERVE_BYTES = 2**16


class NoRoomError(OSError):
    """A disk has less free space than will be needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a run will write, as its model and settings say before it trains."""

    checkpoint_bytes: int
    """Of one checkpoint, over all ranks."""
    num_checkpoints: int
    """That it writes from beginning to end."""
    num_kept: int
    """How many of them are kept."""
    final_bytes: int
    """Of final/."""

    @property
    def most_bytes(self) -> int:
        """At the fullest moment: a checkpoint is written while those to be kept are there, and final/ after the last."""
        beside = min(self.num_kept + 1, self.num_checkpoints)
        return max(beside * self.checkpoint_bytes, min(self.num_kept, self.num_checkpoints) * self.checkpoint_bytes + self.final_bytes)

    def __str__(self) -> str:
        kept = min(self.num_kept, self.num_checkpoints)
        written = " while another is written" * (self.num_checkpoints > kept)
        checkpoints = f"{kept} checkpoint{'s' * (kept != 1)} of {gigabytes(self.checkpoint_bytes)} kept{written}"
        return f"{checkpoints}, then final/ of {gigabytes(self.final_bytes)}"


def require_room_for_run(path: Path, needs: Needs) -> None:
    """Raise NoRoomError unless the disk of `path` has room for all that the run there will keep; what it has there already counts."""
    there = sum(size_of(path / name) for name in ("checkpoints", "final"))
    if needs.most_bytes > there:
        require_room(path, needs.most_bytes - there, f"What this run {'will still write' if there else 'writes'} ({needs})")


def require_room(path: Path, num_bytes: int, what: str) -> None:
    """Raise NoRoomError unless the disk of `path` (which need not exist yet) has room for `what`."""
    free = _free_bytes(path)
    if free < num_bytes:
        shortage = f"{what} takes {gigabytes(num_bytes)}, and the disk of {path} has {gigabytes(free)} left"
        raise NoRoomError(
            errno.ENOSPC, f"{shortage}. Make room (run.keep_last=1 keeps fewer checkpoints), and give the same command again."
        )


def keep_reserve(run: Path) -> None:
    """Make the reserve of the run directory `run`, unless it is there."""
    reserve = run / RESERVE
    if reserve.is_file() and reserve.stat().st_size == RESERVE_BYTES:
        return
    if reserve.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(reserve))
    reserve.unlink(missing_ok=True)  # A pipe, say, would block the next line.
    with reserve.open("xb") as file:
        file.write(os.urandom(RESERVE_BYTES))  # Some file systems store zeros in no room.
        file.flush()
        os.fsync(file.fileno())


def write_in_reserve(path: Path, text: str) -> None:
    """Write a file of a run as `write_whole` does; on a full disk, into the reserve beside it, which then becomes that file.

    Raises OSError when that fails, too.
    """
    try:
        write_whole(path, text)
    except OSError as error:
        if error.errno not in FULL or not path.with_name(RESERVE).is_file():
            raise
        _overwrite(path.with_name(RESERVE), redacted(text).encode("utf-8"))
        path.with_name(RESERVE).replace(path)


def _overwrite(reserve: Path, content: bytes) -> None:
    """Put `content` in the blocks that the file has: no other process can take them in between."""
    descriptor = os.open(reserve, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        os.pwrite(descriptor, content, 0)
        os.ftruncate(descriptor, len(content))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def size_of(directory: Path, pattern: str = "*") -> int:
    """Bytes of all files below a directory whose names match."""
    return sum(path.stat().st_size for path in directory.rglob(pattern) if path.is_file())


def refusal(path: Path, error: Exception) -> str | None:
    """Why the run at `path` could not be written, in a sentence; None when `error` is not about the disk."""
    if isinstance(error, NoRoomError):
        return str(error.strerror)
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        where = error.filename or path
        return f"{where} cannot be written ({error.strerror}). The same command goes on once it can."
    disk_full = "No space left" in str(error) or "File too large" in str(error)  # Messages of safetensors; torch has none.
    if disk_full or (isinstance(error, RuntimeError) and _free_bytes(path) < ALMOST_FULL_BYTES):
        return f"{path} cannot be written (the disk is full). The same command goes on once there is room."
    return None


def _free_bytes(path: Path) -> int:
    existing = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    return shutil.disk_usage(existing).free


def gigabytes(num_bytes: float) -> str:
    """A size for messages.

    >>> gigabytes(1.234e9), gigabytes(2_500_000), gigabytes(400e9)
    ('1.2 GB', '0.0025 GB', '400 GB')
    """
    return f"{num_bytes / 1e9:{'.0f' if num_bytes >= 10e9 else '.2g'}} GB"
