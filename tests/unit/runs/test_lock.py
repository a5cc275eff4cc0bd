"""Who writes a run on this machine; tests/faults has the processes that hold a lock and are killed."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from pathlib import Path

import pytest

from percasym.runs.identity import RunConflict
from percasym.runs.lock import LOCK, sole_writer, writer


def test_the_writer_of_a_run_is_known_while_it_writes_on_this_machine(tmp_path: Path) -> None:
    assert writer(tmp_path / "none") is None
    with sole_writer(tmp_path):
        assert writer(tmp_path) == os.getpid()
        for text in (f"process {os.getpid()} on another host\n", f"process ? on {socket.gethostname()}\n", ""):
            (tmp_path / LOCK).write_text(text)
            assert writer(tmp_path) is None, text
        with pytest.raises(RunConflict, match=r" is being written by another process\. Wait for it"), sole_writer(tmp_path, 0.0):
            pass
    assert writer(tmp_path) is None


def test_an_error_of_the_file_system_is_no_writer_and_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    (tmp_path / LOCK).touch()
    monkeypatch.setattr(fcntl, "flock", failing)
    assert writer(tmp_path) is None
    with pytest.raises(OSError, match="Input/output error"), sole_writer(tmp_path):
        pytest.fail("it was not locked")
