"""Two ranks on the CPU: `on_two_ranks.py` under torchrun, all of its tests in one pair of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def on_two_ranks(*options: str) -> None:
    """Run `on_two_ranks.py`; -x, so that a rank that fails does not leave the other waiting."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    tests = ["pytest", str(HERE / "on_two_ranks.py"), "-x", "-q", "-p", "no:cacheprovider", *options]
    done = subprocess.run([*torchrun, *tests], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_ranks_do_what_one_does() -> None:
    on_two_ranks("-m", "not slow")


@pytest.mark.slow
def test_two_ranks_do_what_one_does_under_every_engine() -> None:
    on_two_ranks("-m", "slow")
