"""A study whose cells do nothing but end in the way that their weight selects."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

FAKE = Path(__file__).with_name("fake_train.py")


@pytest.fixture
def study(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`study("-m", "seed=0,1", COLUMNS="100")`: this command in the test's folder and in a process of its own; None unsets a variable."""

    def run(*words: str, **variables: str | None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(FAKE), *words]
        env = {name: value for name, value in (environment() | variables).items() if value is not None}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False)

    return run


@pytest.fixture
def stopped_study(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The same, and a signal to the sweeping process as soon as a cell with weight 0.7 has begun.

    With `group` its workers get the signal too, a moment later, as those of a terminal do."""

    def run(*words: str, number: signal.Signals = signal.SIGINT, group: bool = False) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(FAKE), *words]
        with subprocess.Popen(command, cwd=tmp_path, env=environment(), stdout=-1, stderr=-1, text=True, start_new_session=True) as sweep:
            give_up = time.monotonic() + 60
            while not any("fixed0.7" in line for line in begun(tmp_path)):
                assert time.monotonic() < give_up and sweep.poll() is None, "the cell never began"
                time.sleep(0.05)
            if group:
                time.sleep(0.2)
                os.killpg(sweep.pid, number)
            else:
                sweep.send_signal(number)
            out, err = sweep.communicate(timeout=60)
        return subprocess.CompletedProcess(command, sweep.returncode, out, err)

    return run


def environment() -> dict[str, str]:
    return os.environ | {"COLUMNS": "200", "OMP_NUM_THREADS": "1"}


def begun(folder: Path) -> list[str]:
    """One line a run that began: cell, seed, process, whether torch was loaded, OMP_NUM_THREADS."""
    file = folder / "begun.txt"
    return file.read_text().splitlines() if file.exists() else []


def meta(run: Path) -> dict:
    return json.loads((run / "meta.json").read_text())
