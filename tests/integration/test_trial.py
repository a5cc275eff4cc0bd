"""A released configuration, shrunk, through the whole of the paper's scale on two ranks (`trial_on_two_ranks.py`): minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.trial_on_two_ranks import ROOT, SUPERVISED, base_words
from tests.torchrun import run_on_ranks

LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.mark.slow
def test_a_released_configuration_trains_on_two_ranks_learns_from_rewards_and_resumes_on_one(tmp_path: Path) -> None:
    run_on_ranks(Path(__file__).with_name("trial_on_two_ranks.py"), environment={"PERCASYM_TRIAL": str(tmp_path)})
    outside = {name: value for name, value in os.environ.items() if name not in LAUNCHER} | {"OMP_NUM_THREADS": "1"}

    alone = tmp_path / "alone"  # The run as it was when it stopped after its first step.
    command = [sys.executable, str(ROOT / "train.py"), *base_words(tmp_path), *SUPERVISED, f"hydra.run.dir={alone}"]
    done = subprocess.run(command, env=outside, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    two, one = (second_step(tmp_path / name) for name in ("sft", "alone"))
    for name in ("loss/total", "loss/perception", "balance/weight", "grad/perception", "grad/reasoning"):
        assert one[name] == pytest.approx(two[name], rel=2e-3), name


def second_step(run: Path) -> dict:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return next(line for line in lines if line["step"] == 2 and "loss/total" in line)
