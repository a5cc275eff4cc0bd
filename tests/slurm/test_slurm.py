"""Runs and studies under a real SLURM: tasks of srun, a study by submitit, `scancel -s TERM`, and a job that requeues itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "scale=smoke", "balance=ngdiff", "engine=deepspeed", "engine.zero_stage=2", "paradigm.batch_size=4", "paradigm.micro_batch_size=2",
    "evaluation.num_samples=2", "evaluation.num_curve_samples=1", "evaluation.max_new_tokens=4",
]  # fmt: skip
SRUN = ["srun", "--ntasks=2", "--cpus-per-task=1", "--time=10", "--kill-on-bad-exit=1", sys.executable, str(ROOT / "train.py")]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(slurm: dict[str, str], tmp_path: Path) -> Start:
    """`start("srun", ...)`: a command of SLURM in an empty folder. MASTER_ADDR is not set."""
    given = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    environment = {name: value for name, value in slurm.items() if name not in given} | {"OMP_NUM_THREADS": "1", "PYTHON": sys.executable}

    def begin(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return begin


def ended(process: subprocess.Popen[str], code: int = 0, seconds: float = 300) -> str:
    """The output of a command, once it has ended with this exit code."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == code, out + err
    return out


def status(run: Path) -> dict:
    return json.loads((run / "meta.json").read_text()) if (run / "meta.json").exists() else {}


def wait_for(what: Callable[[], object], seconds: float, about: Callable[[], str] = str) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, about()
        time.sleep(0.5)


def jobs(start: Start) -> list[str]:
    """The ids of the jobs that run or wait."""
    return ended(start("squeue", "--noheader", "--format=%i"), seconds=30).split()


def test_two_tasks_of_srun_train_one_run_without_an_exported_address(start: Start, tmp_path: Path) -> None:
    out = ended(start(*SRUN, *SMALL, "paradigm.steps=3", "hydra.run.dir=run"))
    assert "on 2 ranks, each cpu, " in out
    assert out.count("end to end") == 1, "one rank speaks"
    assert status(tmp_path / "run")["status"] == "done"
    assert (tmp_path / "run" / "checkpoints" / "step_000003" / "engine_rank1.pt").exists()


def test_a_study_runs_its_cells_as_jobs_of_submitit(start: Start, tmp_path: Path) -> None:
    launcher = ["hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=10", "hydra.launcher.cpus_per_task=1"]
    words = [*SMALL, "paradigm.steps=2", "seed=0,1", "study=grid", *launcher]
    out = ended(start(sys.executable, str(ROOT / "train.py"), "-m", *words), seconds=400)
    runs = sorted((tmp_path / "multirun" / "grid").glob("*/seed*"))
    assert [status(run)["status"] for run in runs] == ["done", "done"], out
    assert "done" in out
    logs = list((tmp_path / "multirun" / "grid").glob(".submitit/*/*_log.out"))
    assert len(logs) == 2, "each was a job of its own"


def test_scancel_with_term_writes_a_checkpoint_and_the_same_command_resumes(start: Start, tmp_path: Path) -> None:
    run, command = tmp_path / "run", [*SRUN, *SMALL, "paradigm.steps=30", "paradigm.save_every=3", "hydra.run.dir=run"]
    process = start(*command)
    wait_for(lambda: (run / "checkpoints" / "step_000003").exists() or process.poll() is not None, 200)
    (job,) = jobs(start)
    ended(start("scancel", "--signal=TERM", job))
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, out + err
    assert status(run)["status"] == "interrupted"
    (last,) = [int(path.name.removeprefix("step_")) for path in sorted((run / "checkpoints").glob("step_*"))][-1:]
    assert last >= 3
    ended(start(*command))
    assert status(run)["status"] == "done"
    assert [session["step"] for session in status(run)["resumed"]] == [last]


@pytest.fixture
def submit(start: Start, tmp_path: Path) -> Callable[..., tuple[str, Path]]:
    """`submit("--time=3", steps=30)`: the committed small.sbatch, in a folder that stands for a checkout; gives the job and its log."""
    (tmp_path / "train.py").symlink_to(ROOT / "train.py")

    def batch(*options: str, steps: int) -> tuple[str, Path]:
        words = [*SMALL, f"paradigm.steps={steps}", "paradigm.save_every=3", "hydra.run.dir=run"]
        submitted = ended(start("sbatch", *options, str(ROOT / "examples" / "slurm" / "small.sbatch"), *words))
        job = re.fullmatch(r"Submitted batch job (\d+)\n", submitted)
        assert job, submitted
        return job[1], tmp_path / f"percasym-small-{job[1]}.log"

    return batch


def test_a_job_that_is_told_to_stop_requeues_itself_and_finishes_the_run(start: Start, submit, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job, log = submit(steps=30)
    wait_for((run / "checkpoints" / "step_000003").exists, 200, lambda: said(log))
    ended(start("scancel", "--signal=TERM", job))
    wait_for(lambda: status(run).get("status") == "done", 400, lambda: said(log))
    assert [session["step"] >= 3 for session in status(run)["resumed"]] == [True]
    assert said(log).count("Interrupted. The same command resumes run.") == 2, "each task says so"
    wait_for(lambda: not jobs(start), 60)


def test_a_job_near_its_time_limit_requeues_itself_and_scancel_ends_it(start: Start, submit, tmp_path: Path) -> None:
    """SLURM sends the signal 60 seconds before the limit of three minutes, or half a minute earlier."""
    run = tmp_path / "run"
    job, log = submit("--time=3", "--signal=TERM@60", steps=100_000)
    wait_for(lambda: any(session["step"] > 0 for session in status(run).get("resumed", [])), 900, lambda: said(log))
    assert "TIME LIMIT" not in said(log), "the job ended itself before"
    ended(start("scancel", job))
    wait_for(lambda: not jobs(start), 60)
    time.sleep(5)
    assert not jobs(start), "for good"
    assert list((run / "checkpoints").glob("step_*/DONE"))


def said(log: Path) -> str:
    return log.read_text(errors="replace") if log.exists() else "no log"
