"""Two processes with gloo, under DDP and DeepSpeed: each file under torchrun, all of its tests in one pair of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def on_two_ranks(file: str, *options: str) -> None:
    """Run the tests of a file; -x, so that a rank that fails does not leave the other waiting."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    own = ["-p", "no:cacheprovider", "-W", "ignore::pytest.PytestUnraisableExceptionWarning"]  # The ranks clear one temporary folder.
    tests = ["pytest", str(HERE / file), "-x", "-q", *own, *options]
    done = subprocess.run([*torchrun, *tests], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_processes_train_as_percasym_does_on_one() -> None:
    on_two_ranks("trainer_on_two_ranks.py", "-m", "not slow")


@pytest.mark.slow
def test_two_processes_train_as_percasym_does_on_one_in_every_case() -> None:
    on_two_ranks("trainer_on_two_ranks.py", "-m", "slow")


@pytest.mark.slow
def test_trl_trains_on_two_processes_as_percasym_does_on_one() -> None:
    pytest.importorskip("trl", reason="pip install 'percasym[trl]'")
    on_two_ranks("trl_on_two_ranks.py")


@pytest.mark.slow
def test_strategies_with_one_backward_are_exact_under_zero() -> None:
    on_two_ranks("trainer_under_zero.py")
