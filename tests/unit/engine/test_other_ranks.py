"""A checkpoint goes on with another number of ranks: `on_other_ranks.py` under torchrun, with two processes, then one, and so on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


def stage(folder: Path, num_ranks: int, chosen: str, marked: str) -> None:
    """Run some tests of `on_other_ranks.py` in so many processes; -x, so that a rank that fails does not leave the others waiting."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}", "-m"]
    tests = ["pytest", str(HERE / "on_other_ranks.py"), "-x", "-q", "-p", "no:cacheprovider", "-k", chosen, "-m", marked]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PERCASYM_CHECKPOINTS": str(folder)}
    done = subprocess.run([*torchrun, *tests], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_two_ranks_wrote_goes_on_with_one(tmp_path: Path) -> None:
    stage(tmp_path, 2, "test_write", "not slow")
    stage(tmp_path, 1, "test_resume", "not slow")


@pytest.mark.slow
def test_any_engine_goes_on_with_any_number_of_ranks(tmp_path: Path) -> None:
    everything = "slow or not slow"
    for num_ranks, chosen in ((2, "test_write"), (1, "test_write or test_resume"), (4, "test_resume or test_write"), (2, "test_resume")):
        stage(tmp_path, num_ranks, chosen, everything)
