"""Launchers other than our own: DeepSpeed's, and two of them that meet, as on two machines."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAIN = str(ROOT / "train.py")
GIVEN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def words(blank: Path) -> list[str]:
    size = [
        "paradigm.steps=2",
        "paradigm.batch_size=4",
        "paradigm.micro_batch_size=2",
        "engine=deepspeed",
        "engine.zero_stage=2",
        "hydra.run.dir=run",
    ]
    few = ["evaluation.num_samples=2", "evaluation.num_curve_samples=1", "evaluation.max_new_tokens=4"]
    return ["scale=smoke", "balance=ngdiff", "engine=deepspeed", "engine.zero_stage=2", f"model.path={blank}", *size, *few]


@pytest.fixture
def begin(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """`begin("deepspeed", ...)`: a command in an empty folder, which no launcher started."""
    outside = {name: value for name, value in os.environ.items() if name not in GIVEN} | {"OMP_NUM_THREADS": "1"}

    def start(*command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(command, cwd=tmp_path, env=outside, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


def finished(*processes: subprocess.Popen[str]) -> list[tuple[str, str]]:
    """What they printed, once all have ended well."""
    said = [process.communicate(timeout=600) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


def test_the_flag_of_deepspeed_s_launcher_is_no_option_of_ours(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    for flag in (["--local_rank=1"], ["--local-rank", "1"]):
        answer = command(*flag, "task=nothing")
        assert (answer.code, answer.out) == (2, "")
        assert "task=nothing" in answer.err, "what is wrong is what else was given"
    assert os.environ.pop("LOCAL_RANK") == "1"


@pytest.mark.slow
def test_deepspeed_starts_the_ranks_of_a_run(begin, words: list[str], tmp_path: Path) -> None:
    port = f"--master_port={free_port()}"
    process = begin(sys.executable, "-m", "deepspeed.launcher.runner", "--num_gpus=2", port, TRAIN, *words)
    ((out, _),) = finished(process)
    assert "on 2 ranks, each cpu, " in out
    assert json.loads((tmp_path / "run" / "meta.json").read_text())["status"] == "done"
    assert (tmp_path / "run" / "checkpoints" / "step_000002" / "engine_rank1.pt").exists()


@pytest.mark.slow
def test_two_torchruns_meet(begin, words: list[str], tmp_path: Path) -> None:
    meeting = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{free_port()}", "--rdzv-id=test"]
    launchers = [begin(sys.executable, "-m", "torch.distributed.run", *meeting, TRAIN, *words) for _ in range(2)]
    said = finished(*launchers)
    assert sum("on 2 ranks, each cpu, " in out for out, _ in said) == 1, "one rank speaks"
    assert json.loads((tmp_path / "run" / "meta.json").read_text())["status"] == "done"


@pytest.mark.slow
def test_two_of_our_launchers_meet_and_the_first_says_that_it_waits(begin, words: list[str], tmp_path: Path) -> None:
    where = f"localhost:{free_port()}"
    command = [sys.executable, TRAIN, *words, "launch.nproc=1", "launch.nnodes=2", f"launch.rendezvous={where}"]
    first = begin(*command)
    assert first.stderr is not None
    assert first.stderr.readline() == f"Waiting for another machine at {where}. Give the same command on each.\n"
    time.sleep(1)
    said = finished(first, begin(*command))
    assert sum("on 2 ranks, each cpu, " in out for out, _ in said) == 1
    assert "Waiting" not in said[1][1]
    assert json.loads((tmp_path / "run" / "meta.json").read_text())["status"] == "done"
