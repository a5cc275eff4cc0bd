"""A killed run goes on as if nothing had happened, wherever it was killed: the short forms of kills.py and study.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = Path(__file__).with_name("kills.py")
FAKE = KILLS.parents[1] / "unit" / "launch" / "fake_train.py"
SAME = "the same bits, lines and files as undisturbed."


def kills(*options: str, script: Path = KILLS) -> subprocess.CompletedProcess[str]:
    told = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    outside = {name: value for name, value in os.environ.items() if name not in told}
    return subprocess.run([sys.executable, str(script), *options], env=outside, capture_output=True, text=True, check=False)


def study(*options: str) -> subprocess.CompletedProcess[str]:
    return kills(*options, script=KILLS.with_name("study.py"))


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


@pytest.mark.slow
def test_a_killed_study_ends_with_all_done_that_can_be() -> None:
    done = study("--cells=4", "--kills=2", "--seconds=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kill 2: " in done.stdout
    assert re.search(r"\): 2 done and 2 reported, after \d more repetitions\.$", done.stdout.strip())


@pytest.mark.slow
@pytest.mark.parametrize("options", [("--cells=40", "--kills=12"), ("--cells=6", "--kills=4", "--real", "--seconds=8")])
def test_a_long_study_survives_many_kills(options: tuple[str, ...]) -> None:
    done = study(*options)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_cell_outlives_a_study_that_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cell waits for a file that never comes."""
    monkeypatch.syspath_prepend(str(KILLS.parent))
    from attempts import alive

    command = [sys.executable, str(FAKE), "-m", "balance=fixed", "balance.weight=0.7,0.9"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sweep:
        until = time.monotonic() + 60
        while not (tmp_path / "begun.txt").exists():
            assert time.monotonic() < until and sweep.poll() is None, "the cell never began"
            time.sleep(0.05)
        sweep.kill()
    cell = int((tmp_path / "begun.txt").read_text().split()[2])
    until = time.monotonic() + 5
    while alive(cell):
        assert time.monotonic() < until, "the cell goes on"
        time.sleep(0.05)
