"""One writer for each run directory: a lock that the kernel gives back when its holder dies, however it dies."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from percasym.runs.identity import RunConflict

LOCK = ".lock"
PATIENCE_SECONDS = 5.0
"""How long to wait for a writer that was just killed: the system takes its time to clear away a process that held gigabytes."""


@contextmanager
def sole_writer(path: Path, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[None]:
    """While it lasts, nobody else writes the run at `path`, which is made if it is not there.

    Raises RunConflict, with the process that writes it. Warns where the file system has no locks.
    """
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        _take(descriptor, path, time.monotonic() + patience_seconds)
        yield
    finally:
        os.close(descriptor)


def writer(path: Path) -> int | None:
    """The process of this machine that writes the run at `path`; None where none does, or one of another machine."""
    try:
        descriptor = os.open(path / LOCK, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        process, _, host = os.pread(descriptor, 100, 0).decode("utf-8", "replace").strip().removeprefix("process ").partition(" on ")
        return int(process) if process.isdigit() and host == socket.gethostname() else None
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


def _take(descriptor: int, path: Path, until: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                holder = os.pread(descriptor, 100, 0).decode("utf-8", "replace").strip() or "another process"
                raise RunConflict(f"{path} is being written by {holder}. Wait for it, stop it, or choose another study.") from None
            time.sleep(0.05)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            warnings.warn(f"The file system of {path} has no locks ({error.strerror}): see that no other run writes there.", stacklevel=4)
            return
        else:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            return
