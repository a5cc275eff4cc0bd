"""Room on a disk: looked for before a checkpoint is written, and told in one sentence when a disk does not take what a run writes."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

NEARLY_NOTHING = 2**20
"""Bytes: a disk with less is full, whatever the library that failed to write to it says."""
REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EEXIST)
"""What a disk answers that is no defect of ours."""


class NoRoomError(OSError):
    """A disk has less room than will be needed."""


def require_room(path: Path, num_bytes: int, what: str) -> None:
    """Raise NoRoomError unless the disk on which `path` lies, or will lie, has room for `what`."""
    free = _free(path)
    if free < num_bytes:
        said = f"{what} takes {gigabytes(num_bytes)}, and the disk of {path} has {gigabytes(free)} left"
        raise NoRoomError(errno.ENOSPC, f"{said}. Make room (run.keep_last=1 keeps fewer checkpoints), and give the same command again.")


def size_of(directory: Path) -> int:
    """Bytes of all files below a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def refusal(path: Path, error: Exception) -> str | None:
    """Why the disk of the run at `path` did not take what was written, in a sentence; None when `error` is about something else."""
    if isinstance(error, NoRoomError):
        return str(error.strerror)
    if isinstance(error, OSError) and error.errno in REFUSALS:
        where = error.filename or path
        return f"{where} cannot be written ({error.strerror}). The same command goes on once it can."
    written = "No space left" in str(error) or "File too large" in str(error)  # safetensors' words; torch has none.
    if written or (isinstance(error, RuntimeError) and _free(path) < NEARLY_NOTHING):
        return f"{path} cannot be written (the disk is full). The same command goes on once there is room."
    return None


def _free(path: Path) -> int:
    there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    return shutil.disk_usage(there).free


def gigabytes(num_bytes: float) -> str:
    """A size for people.

    >>> gigabytes(1.234e9), gigabytes(2_500_000)
    ('1.2 GB', '0.0025 GB')
    """
    return f"{num_bytes / 1e9:.2g} GB"
