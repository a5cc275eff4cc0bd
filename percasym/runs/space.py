"""Disk space: checked before a checkpoint is written; write errors of a disk become one sentence."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

ALMOST_FULL_BYTES = 2**20
"""With less free space a disk counts as full, whatever message the library that failed to write gave."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EEXIST)
"""Write errors that are not defects of percasym."""


class NoRoomError(OSError):
    """A disk has less free space than will be needed."""


def require_room(path: Path, num_bytes: int, what: str) -> None:
    """Raise NoRoomError unless the disk of `path` (which need not exist yet) has room for `what`."""
    free = _free_bytes(path)
    if free < num_bytes:
        shortage = f"{what} takes {gigabytes(num_bytes)}, and the disk of {path} has {gigabytes(free)} left"
        raise NoRoomError(
            errno.ENOSPC, f"{shortage}. Make room (run.keep_last=1 keeps fewer checkpoints), and give the same command again."
        )


def size_of(directory: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


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

    >>> gigabytes(1.234e9), gigabytes(2_500_000)
    ('1.2 GB', '0.0025 GB')
    """
    return f"{num_bytes / 1e9:.2g} GB"
