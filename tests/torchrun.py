"""Files of tests that run in several processes with gloo, each started under torchrun by a test of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run_on_ranks(file: Path, *options: str, num_ranks: int = 2, environment: dict[str, str] | None = None) -> None:
    """Run the tests of a file in so many processes, all of which must pass.

    -x, so that a rank that fails does not leave the others waiting.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}", "-m"]
    tests = ["pytest", str(file), "-x", "-q", "-p", "no:cacheprovider", *options]
    given = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})
    done = subprocess.run([*torchrun, *tests], env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
