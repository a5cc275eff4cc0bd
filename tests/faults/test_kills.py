"""A killed run goes on as if nothing had happened, wherever it was killed: the short form of kills.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).with_name("kills.py")
SAME = "the same bits, lines and files as undisturbed."


def kills(*options: str) -> subprocess.CompletedProcess[str]:
    told = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    outside = {name: value for name, value in os.environ.items() if name not in told}
    return subprocess.run([sys.executable, str(KILLS), *options], env=outside, capture_output=True, text=True, check=False)


def test_two_kills_leave_no_trace() -> None:
    done = kills("--kills=2", "--steps=3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill 2: " in done.stdout
    assert done.stdout.endswith(f"{SAME}\n")


@pytest.mark.slow
@pytest.mark.parametrize("paradigm", ["sft", "rl"])
@pytest.mark.parametrize("engine", ["torch", "deepspeed"])
def test_many_kills_leave_no_trace(paradigm: str, engine: str) -> None:
    done = kills("--kills=8", f"--paradigm={paradigm}", f"--engine={engine}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("paradigm", "engine"), [("sft", "torch"), ("sft", "deepspeed engine.zero_stage=3"), ("rl", "deepspeed")])
def test_kills_of_two_ranks_leave_no_trace(paradigm: str, engine: str) -> None:
    done = kills("--kills=4", "--ranks=2", f"--paradigm={paradigm}", f"--engine={engine}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_differs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(KILLS.parent))
    from kills import differences

    for name in ("whole", "run"):
        for folder in ("final", "samples"):
            (tmp_path / name / folder).mkdir(parents=True)
        (tmp_path / name / "final" / "model.safetensors").write_bytes(b"1")
        (tmp_path / name / "metrics.jsonl").write_text('{"step": 1, "lr": 0.5, "time/step_seconds": 1.0}\n')
        (tmp_path / name / "summary.json").write_text('{"seconds": {}, "gain": 1}')
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert differences(whole, run) == []
    (run / "metrics.jsonl").write_text('{"step": 1, "lr": 0.5, "time/step_seconds": 2.0}\n' * 2)
    (run / "final" / "model.safetensors").write_bytes(b"2")
    (run / "checkpoints").mkdir()
    assert differences(whole, run) == [
        "one has checkpoints, and the other has not",
        "final/model.safetensors differs",
        "metrics.jsonl differs",
    ]
