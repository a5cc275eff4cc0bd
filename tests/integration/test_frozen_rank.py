"""A rank of two is stopped by SIGSTOP: the run ends with a sentence that names it, and the same command resumes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LIMIT_SECONDS = 6
SRUN = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_ID": "0"}


@pytest.fixture
def start(tmp_path: Path, blank: Path) -> Callable[..., subprocess.Popen[str]]:
    """`start("paradigm.steps=9", SLURM_PROCID="0")`: train.py with two ranks, in a process of its own."""
    size = ["scale=smoke", f"model.path={blank}", "paradigm.batch_size=2", "paradigm.eval_every=0", "paradigm.save_every=2"]
    few = ["evaluation.num_samples=2", "evaluation.num_curve_samples=1", "evaluation.max_new_tokens=4", "hydra.run.dir=run"]
    limit = f"launch.heartbeat_minutes={LIMIT_SECONDS / 60}"

    def begin(*words: str, **variables: str) -> subprocess.Popen[str]:
        outside = {name: value for name, value in os.environ.items() if name not in LAUNCHED} | {"OMP_NUM_THREADS": "1"} | variables
        command = [sys.executable, str(ROOT / "train.py"), *size, *few, limit, *words]
        return subprocess.Popen(command, cwd=tmp_path, env=outside, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return begin


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    give_up = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None and time.monotonic() < give_up, process.communicate()[1]
        time.sleep(0.05)


def ranks_of(launcher: int) -> dict[int, int]:
    """Rank -> process id, of the ranks that a launcher started."""
    children = [int(pid) for task in Path(f"/proc/{launcher}/task").iterdir() for pid in (task / "children").read_text().split()]
    found = {}
    for pid in children:
        if rank := re.search(r"\0RANK=(\d+)\0", "\0" + Path(f"/proc/{pid}/environ").read_text()):
            found[int(rank[1])] = pid
    return found


def meta(run: Path) -> dict:
    return json.loads((run / "meta.json").read_text())


@pytest.mark.slow  # What notices it is tested in every suite, with a process that is stopped: tests/unit/engine/test_heartbeat.py.
@pytest.mark.parametrize("frozen", [0, 1])
def test_a_frozen_rank_ends_the_run_and_is_named(start, tmp_path: Path, frozen: int) -> None:
    run = tmp_path / "run"
    process = start("launch.nproc=2", "paradigm.steps=4000")
    wait_for(run / "checkpoints" / "step_000002", process)
    ranks = ranks_of(process.pid)
    assert sorted(ranks) == [0, 1]
    os.kill(ranks[frozen], signal.SIGSTOP)
    began = time.monotonic()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    last = err.strip().splitlines()[-1]
    said = re.fullmatch(
        rf"Rank {frozen} has not responded for {LIMIT_SECONDS} s: its process is frozen or its machine is gone "
        r"\(last steps: (.*)\)\. What the ranks said is in run/failure\.log; the same command resumes\.",
        last,
    )
    assert said, err
    assert re.fullmatch(r"\d+ of ranks 0, 1|\d+ of rank \d, \d+ of rank \d", said[1]), "the last step of each rank"
    assert "Traceback" not in err
    assert time.monotonic() - began < LIMIT_SECONDS + 60
    assert meta(run)["status"] == "failed"
    assert last.startswith(meta(run)["reason"] + ". ")
    log = (run / "failure.log").read_text()
    assert f"Rank {1 - frozen}, " in log
    assert "This rank was at:" in log and "sft.py" in log, "where the other rank waited"
    assert not any(Path(f"/proc/{pid}").exists() for pid in ranks.values()), "the frozen process is gone, too"
    if frozen == 1:
        steps = max(int(path.name.removeprefix("step_")) for path in (run / "checkpoints").glob("step_*"))
        again = start("launch.nproc=2", "paradigm.steps=4000", "launch.heartbeat_minutes=0")
        wait_for(run / "checkpoints" / f"step_{steps + 2:06d}", again)
        again.send_signal(signal.SIGTERM)
        _, err = again.communicate(timeout=120)
        assert again.returncode == 143, err
        assert [session["step"] for session in meta(run)["resumed"]] == [steps]


@pytest.mark.slow
@pytest.mark.parametrize("frozen", [1, 0])
def test_it_is_noticed_under_srun_too_where_rank_0_hosts_the_store(start, tmp_path: Path, frozen: int) -> None:
    run, job = tmp_path / "run", SRUN | {"SLURM_JOB_ID": str(os.getpid())}
    tasks = [start("paradigm.steps=4000", SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), **job) for rank in range(2)]
    try:
        wait_for(run / "checkpoints" / "step_000002", tasks[0])
        tasks[frozen].send_signal(signal.SIGSTOP)
        _, err = tasks[1 - frozen].communicate(timeout=120)
        assert tasks[1 - frozen].returncode == 1
        said = f"Rank {frozen} has not responded for {LIMIT_SECONDS} s: its process is frozen or its machine is gone (last steps: "
        assert any(line.startswith(said) and line.endswith("The same command resumes.") for line in err.splitlines()), err
        assert meta(run)["status"] == "failed"
        assert meta(run)["reason"].startswith(said)
    finally:
        for task in tasks:
            task.kill()
            task.communicate()


@pytest.mark.slow
def test_a_run_that_is_suspended_as_a_whole_goes_on(start, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start("launch.nproc=2", "paradigm.steps=4000")
    wait_for(run / "checkpoints" / "step_000002", process)
    everybody = [process.pid, *ranks_of(process.pid).values()]
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(2 * LIMIT_SECONDS)
    for pid in everybody:
        os.kill(pid, signal.SIGCONT)
    last = max(int(path.name.removeprefix("step_")) for path in (run / "checkpoints").glob("step_*"))
    wait_for(run / "checkpoints" / f"step_{last + 6:06d}", process)
    time.sleep(LIMIT_SECONDS)
    assert process.poll() is None, process.communicate()[1]
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
