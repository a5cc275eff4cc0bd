"""One writing process for each run directory: an flock, which the kernel releases when its holder dies, however it dies."""

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
TIMEOUT_SECONDS = 5.0
"""How long to wait for a writer that was just killed: the kernel takes a while to clean up a process that held gigabytes."""


@contextmanager
def sole_writer(path: Path, timeout_seconds: float = TIMEOUT_SECONDS) -> Iterator[None]:
    """Hold the lock of the run at `path` (created if missing) while the block runs.

    Raises RunConflict, which names the process that holds it. Warns where the file system has no locks.
    """
    path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        _acquire(descriptor, path, time.monotonic() + timeout_seconds)
        yield
    finally:
        os.close(descriptor)


def writer(path: Path) -> int | None:
    """Id of the process on this machine that writes the run at `path`; None where there is none, or it runs on another machine."""
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


def _acquire(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
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
