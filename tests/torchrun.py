"""Files of tests that run in several processes with gloo, each started under torchrun by a test of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path


def run_on_ranks(*files: Path, options: Sequence[str] = (), num_ranks: int = 2, environment: dict[str, str] | None = None) -> None:
    """Run the tests of some files in so many processes, all of which must pass.

    -x, so that a rank that fails does not leave the others waiting. The ranks keep their files in a folder of their
    own: pytest tidies the common one at its end, and two processes that do so at once fail.
    """
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}", "-m"]
    keep_all = ("-o", "tmp_path_retention_count=1000")
    tests = ["pytest", *map(str, files), "-x", "-q", "-p", "no:cacheprovider", *keep_all, *options]
    with tempfile.TemporaryDirectory() as folder:
        own = {"OMP_NUM_THREADS": "1", "PYTEST_DEBUG_TEMPROOT": folder}
        given = os.environ | own | (environment or {})
        done = subprocess.run([*torchrun, *tests], env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
