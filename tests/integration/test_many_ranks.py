"""Whole runs on two ranks, as a user starts them: what they leave behind, how they end, how they go on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from safetensors.torch import load_file

from percasym.launch import torchrun

ROOT = Path(__file__).resolve().parents[2]
RUN = Path("run")
ZERO_3 = ("engine=deepspeed", "engine.zero_stage=3")
MORTAL = """
import os
from dataclasses import dataclass
from pathlib import Path
from percasym.balance.ngdiff import NGDiff

@dataclass(frozen=True, kw_only=True)
class Mortal(NGDiff):
    def step(self, state, stats):
        if stats.step == 2 and os.environ["RANK"] == "1" and Path("die").exists():
            raise ZeroDivisionError("a defect of one rank")
        return super().step(state, stats)
"""
"""A strategy that fails on one rank of two, as long as a file named `die` lies in the working directory."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of this file lie side by side."""
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def words(blank: Path) -> list[str]:
    """A run of four steps on four samples each, two ranks with two micro-batches each."""
    size = ["paradigm.steps=4", "paradigm.batch_size=4", "paradigm.micro_batch_size=1", "paradigm.eval_every=2", "paradigm.save_every=1"]
    few = ["evaluation.num_samples=5", "evaluation.num_curve_samples=1", "evaluation.max_new_tokens=6"]
    return ["scale=smoke", "balance=ngdiff", f"model.path={blank}", *size, *few]


@pytest.fixture(scope="module")
def start(folder: Path, words: list[str]) -> Callable[..., subprocess.Popen[str]]:
    """`start("engine=torch")`: train.py with these words, in `folder`, as a process of its own."""

    def begin(*more: str) -> subprocess.Popen[str]:
        given = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        outside = {name: value for name, value in os.environ.items() if name not in given} | {"PYTHONPATH": str(folder)}
        command = [sys.executable, str(ROOT / "train.py"), *words, *more]
        return subprocess.Popen(
            command, cwd=folder, env=outside, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    return begin


@pytest.fixture(scope="module")
def whole(folder: Path, start) -> Path:
    """A run on two ranks under ZeRO-3 from beginning to end."""
    process = start("launch.nproc=2", *ZERO_3, "hydra.run.dir=whole")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.count("end to end") == 1, "one rank speaks"
    assert "on 2 ranks, each cpu, " in out
    return folder / "whole"


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def curve(run: Path) -> list[dict]:
    """The numbers of metrics.jsonl, without what a clock wrote."""
    return [
        {key: value for key, value in line.items() if isinstance(value, int | float) and "second" not in key}
        for line in lines(run / "metrics.jsonl")
    ]


def status(run: Path) -> dict:
    return json.loads((run / "meta.json").read_text())


def cut_back(run: Path, copy: Path, step: int) -> Path:
    """A copy of a finished run as it was when it was interrupted after the checkpoint of `step`."""
    shutil.copytree(run, copy)
    (copy / "meta.json").write_text(json.dumps(status(run) | {"status": "interrupted"}))
    for path in [copy / "final", *(path for path in (copy / "checkpoints").iterdir() if int(path.name.removeprefix("step_")) > step)]:
        shutil.rmtree(path)
    (copy / "summary.json").unlink()
    return copy


def test_two_ranks_leave_what_one_leaves(whole: Path, folder: Path, start) -> None:
    process = start("engine=torch", "hydra.run.dir=alone")
    _, err = process.communicate()
    assert process.returncode == 0, err
    alone = folder / "alone"
    assert {path.relative_to(whole) for path in whole.iterdir()} == {path.relative_to(alone) for path in alone.iterdir()}
    shared, single = curve(whole), curve(alone)
    assert [line["step"] for line in shared] == [line["step"] for line in single]
    for ours, theirs in zip(shared, single, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    before = "samples/test_000000.jsonl"  # Five samples do not divide by two, and nothing has been rounded by training yet.
    assert lines(whole / before) == lines(alone / before)
    assert status(whole)["argv"][0].endswith("train.py")


@pytest.mark.slow
def test_tasks_of_srun_meet_without_an_address(whole: Path, folder: Path, words: list[str]) -> None:
    """The variables that SLURM gives to two tasks on one node; nobody exports MASTER_ADDR or MASTER_PORT."""
    given = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    outside = {name: value for name, value in os.environ.items() if name not in given}
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0"}
    command = [sys.executable, str(ROOT / "train.py"), *words, *ZERO_3, "hydra.run.dir=srun"]
    tasks = [
        subprocess.Popen(
            command,
            cwd=folder,
            env=outside | step | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [task.communicate(timeout=600) for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    for ours, theirs in zip(curve(folder / "srun"), curve(whole), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)


def test_a_run_of_two_ranks_goes_on_with_one(whole: Path, folder: Path, start) -> None:
    run = cut_back(whole, folder / "fewer", step=3)
    _, err = (process := start("launch.nproc=1", *ZERO_3, "hydra.run.dir=fewer")).communicate()
    assert process.returncode == 0, err
    assert [(session["step"], session["device"].split(",")[0]) for session in status(run)["resumed"]] == [(3, "cpu")]
    for ours, theirs in zip(curve(run), curve(whole), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    ours, theirs = (load_file(place / "final" / "model.safetensors") for place in (run, whole))
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in theirs) < 1e-6


def test_the_final_model_gives_the_same_answers_in_plain_transformers(whole: Path) -> None:
    import yaml
    from transformers import AutoModelForImageTextToText

    from percasym.config.resolve import rebuild
    from percasym.rollout.native import NativeAnswers
    from percasym.training.evaluate import evaluate

    settings = rebuild(yaml.safe_load((whole / "config.yaml").read_text()), path=whole)
    model = AutoModelForImageTextToText.from_pretrained(whole / "final")
    greedy = NativeAnswers(family=settings.family)
    greedy.refresh(model)
    answers = evaluate(greedy=greedy, family=settings.family, task=settings.task, settings=settings.evaluation)
    assert json.loads(json.dumps(answers.records)) == lines(whole / "samples" / "test_000004.jsonl")


MORTAL_RUN = ["launch.nproc=2", *ZERO_3, "hydra.run.dir=mortal", "plugins=[mortal]", "balance._target_=mortal.Mortal"]


@pytest.fixture(scope="module")
def died(folder: Path, start) -> tuple[Path, int, str]:
    """A run of two ranks of which one has died, its exit code, and what it printed on stderr; it may be started again."""
    (folder / "mortal.py").write_text(MORTAL)
    (folder / "die").touch()
    process = start(*MORTAL_RUN)
    _, err = process.communicate()
    (folder / "die").unlink()
    return folder / "mortal", process.returncode, err


def test_a_rank_that_dies_ends_the_run(died: tuple[Path, int, str]) -> None:
    run, code, err = died
    assert code == 1
    message = err.strip().splitlines()[-1]
    assert message == (
        "Rank 1 failed: ZeroDivisionError: a defect of one rank. What the ranks said is in mortal/failure.log; the same command resumes."
    )
    assert "Traceback" not in err
    log = (run / "failure.log").read_text()
    when = re.match(r"Rank 1, (\S+):\nTraceback", log)
    assert when, log
    stopped = (run / "failure.log").stat().st_mtime
    assert stopped - datetime.fromisoformat(when[1]).timestamp() < 30, "the other rank is gone soon"
    assert 'raise ZeroDivisionError("a defect of one rank")' in log
    assert status(run)["status"] == "failed"
    assert status(run)["reason"] == "Rank 1 failed: ZeroDivisionError: a defect of one rank"


@pytest.mark.slow
def test_after_a_rank_died_the_same_command_resumes(whole: Path, died: tuple[Path, int, str], start) -> None:
    run, *_ = died
    again = start(*MORTAL_RUN)
    _, err = again.communicate()
    assert again.returncode == 0, err
    assert [session["step"] for session in status(run)["resumed"]] == [2]
    assert curve(run) == curve(whole), "as if nothing had happened"
    assert "reason" not in status(run)


def test_what_a_rank_refuses_is_one_sentence(folder: Path, start) -> None:
    process = start("launch.nproc=2", "model.path=/nowhere/to/be/found", "hydra.run.dir=refused")
    out, err = process.communicate()
    assert process.returncode == 2
    assert err.startswith("No checkpoint directory at /nowhere/to/be/found.")
    assert err.count("\n") == 1
    assert out == ""
    assert not (folder / "refused").exists()


def test_a_defect_before_the_run_begins_is_shown_in_full(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    report = {"at": 0.0, "rank": 1, "refused": False, "sentence": "OSError: no disk", "traceback": "Traceback ...\nOSError: no disk\n"}
    (tmp_path / "rank1.json").write_text(json.dumps(report))
    (tmp_path / "stderr.log").write_text("a warning")
    sentence = torchrun._record_failure(tmp_path / "no run", "Rank 1 failed: OSError: no disk", torchrun._reports(tmp_path), tmp_path)
    assert sentence == "Rank 1 failed: OSError: no disk. The run had not begun."
    shown = capsys.readouterr().err
    assert "Rank 1, 1970-01-01T00:00:00+00:00:\nTraceback ...\nOSError: no disk" in shown
    assert "a warning" in shown


@pytest.mark.slow
def test_an_outer_torchrun_brings_its_own_ranks(whole: Path, folder: Path, words: list[str]) -> None:
    outer = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(ROOT / "train.py")]
    more = [*ZERO_3, "hydra.run.dir=outer"]
    done = subprocess.run([*outer, *words, *more], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("end to end") == 1, "one rank speaks"
    assert curve(folder / "outer") == curve(whole)


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["the terminal", "the launcher"])
def test_an_interruption_reaches_all_ranks_and_the_same_command_resumes(folder: Path, start, whom: str) -> None:
    run = folder / whom.replace(" ", "-")
    ranks = ["launch.nproc=2", "paradigm.steps=300", "paradigm.eval_every=0", "paradigm.save_every=5", f"hydra.run.dir={run.name}"]
    process = start(*ranks)
    while not (run / "checkpoints" / "step_000005").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    stop = signal.SIGINT if whom == "the terminal" else signal.SIGTERM
    if whom == "the terminal":  # Ctrl-C goes to every process of the foreground.
        os.killpg(process.pid, stop)
    else:
        process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + stop
    assert err.endswith(f"Interrupted. The same command resumes {run.name}.\n")
    assert status(run)["status"] == "interrupted"
    last = curve(run)[-1]["step"]
    assert last > 5
    assert (run / "checkpoints" / f"step_{last:06d}" / "engine_rank1.pt").exists(), "both ranks have kept the step that was not to be lost"


@pytest.mark.slow
def test_one_rank_that_is_told_to_stop_tells_the_others(folder: Path, start) -> None:
    run = folder / "one-rank"
    process = start("launch.nproc=2", "paradigm.steps=300", "paradigm.eval_every=0", "paradigm.save_every=5", f"hydra.run.dir={run.name}")
    while not (run / "checkpoints" / "step_000005").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    ranks = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    os.kill(ranks[-1], signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert status(run)["status"] == "interrupted"
