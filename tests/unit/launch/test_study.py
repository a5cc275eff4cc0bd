"""A study end to end: real processes and configuration, cells that do nothing but end in every way that cells can."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from percasym.cli.main import main
from tests.unit.launch.conftest import begun, meta

CELL = "sudoku-qwen3vl-sft-{}/seed{}"


def rows(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The table at the end: cell -> outcome."""
    found = (line.split(maxsplit=1) for line in done.stdout.splitlines() if "/seed" in line)
    return {cell.removeprefix("sudoku-qwen3vl-sft-"): outcome.strip() for cell, outcome in found}


def test_a_cell_that_fails_is_reported_and_the_others_go_on(study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = study("-m", "study=s", "balance=fixed", "balance.weight=0.2,0.3,0.4,0.6,0.5")
    assert done.returncode == 1, done.stderr
    killed = "it was ended by SIGKILL (what the system does where memory runs out)."
    assert rows(done) == {
        "fixed0.2/seed0": "failed: it ended with exit code 3.",
        "fixed0.3/seed0": "failed: ZeroDivisionError: a defect",
        "fixed0.4/seed0": f"failed: {killed}",
        "fixed0.6/seed0": "failed: there is no such checkpoint.",
        "fixed0.5/seed0": "done",
    }
    assert "multirun/s/sudoku-qwen3vl-sft-fixed0.6/seed0 failed: there is no such checkpoint.\n" in done.stderr, (
        "printed at once, on one line"
    )
    processes = {line.split()[2] for line in begun(tmp_path)}
    assert len(processes) == 4, "each has a process of its own"
    assert meta(tmp_path / "multirun/s" / CELL.format("fixed0.4", 0))["reason"] == killed

    assert main(["status", str(tmp_path / "multirun/s")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "failed before it began: it ended with exit code 3." in shown, "also of the cell that never had a run directory"

    again = study("-m", "study=s", "balance=fixed", "balance.weight=0.5,0.1")
    assert again.returncode == 0
    assert rows(again) == {"fixed0.5/seed0": "skipped, for it was done", "fixed0.1/seed0": "done"}
    assert len(begun(tmp_path)) == 5, "what is done is not even started"


def test_a_study_with_a_wrong_cell_starts_none(study, tmp_path: Path) -> None:
    done = study("-m", "balance=none,fixed", "balance.weight=0.1")
    assert done.returncode == 2
    assert done.stderr.startswith("There is no option balance.weight. balance=none has no options. No cell was started; this one is ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_two_cells_of_one_directory_are_refused(study, tmp_path: Path) -> None:
    done = study("-m", "study=s", "balance=schedule", "balance.end=0.5,0.25")
    assert done.returncode == 2
    assert "would share the directory multirun/s/sudoku-qwen3vl-sft-schedule/seed0. Run them as two studies, or tell them" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_cell_whose_directory_holds_another_run_is_refused_beforehand(study, tmp_path: Path) -> None:
    assert study("study=s").returncode == 0
    done = study("-m", "study=s", "seed=1,0", "paradigm.lr=0.5")
    assert done.returncode == 2
    assert "holds a run with paradigm.lr=0.001, this one asks for paradigm.lr=0.5." in done.stderr
    assert not (tmp_path / "multirun/s" / CELL.format("none", 1)).exists()


def test_an_interrupted_study_stops_at_once_and_goes_on_later(
    study, stopped_study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("-m", "study=s", "balance=fixed", "balance.weight=0.7,0.9")
    done = stopped_study(*words)
    assert done.returncode == 130, done.stderr
    assert done.stderr.endswith("Interrupted. The same command goes on with the study.\n")
    assert rows(done) == {"fixed0.7/seed0": "interrupted", "fixed0.9/seed0": "not begun"}
    assert meta(tmp_path / "multirun/s" / CELL.format("fixed0.7", 0))["status"] == "interrupted", "its process left in good order"
    assert list(json.loads((tmp_path / "multirun/s/study.json").read_text())["cells"]) == [CELL.format(f"fixed{w}", 0) for w in (0.7, 0.9)]
    assert main(["status", str(tmp_path / "multirun/s")]) == 0
    assert "1 interrupted, 1 not begun" in capsys.readouterr().out
    (tmp_path / "go_on").touch()
    done = study(*words)
    assert done.returncode == 0
    assert rows(done) == {"fixed0.7/seed0": "done", "fixed0.9/seed0": "done"}


def test_a_study_that_is_terminated_leaves_no_cell_behind(stopped_study, tmp_path: Path) -> None:
    done = stopped_study("-m", "study=s", "balance=fixed", "balance.weight=0.7,0.9", number=signal.SIGTERM)
    assert done.returncode == 130, done.stderr
    assert meta(tmp_path / "multirun/s" / CELL.format("fixed0.7", 0))["status"] == "interrupted"
    with pytest.raises(ProcessLookupError):
        os.kill(int(begun(tmp_path)[0].split()[2]), 0)


@pytest.mark.parametrize(
    ("number", "group"),
    [
        (signal.SIGTERM, False),
        (signal.SIGINT, True),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGHUP, True)]),
    ],
)
def test_cells_side_by_side_end_in_good_order_too(stopped_study, tmp_path: Path, number: signal.Signals, group: bool) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    joblib = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = stopped_study("-m", "study=s", *joblib, "balance=fixed", "balance.weight=0.7,0.9", number=number, group=group)
    assert done.returncode == 130, done.stderr
    assert (tmp_path / "ended_in_order.txt").exists(), "joblib kills its workers as soon as it is interrupted itself"
    assert meta(tmp_path / "multirun/s" / CELL.format("fixed0.7", 0))["status"] == "interrupted"


def test_a_study_of_your_own_needs_no_flag_of_hydra(study, tmp_path: Path) -> None:
    own = tmp_path / "mine" / "experiment" / "own.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(
        "# @package _global_\nstudy: own\nhydra: {mode: MULTIRUN, sweeper: {cells: [balance=none, balance=ngdiff paradigm.steps=7]}}\n"
    )
    done = study("--config-dir=mine", "experiment=own", "seed=4")
    assert done.returncode == 0, done.stderr
    assert rows(done) == {"none/seed4": "done", "ngdiff/seed4": "done"}
    assert "  steps: 7\n" in (tmp_path / "multirun/own" / CELL.format("ngdiff", 4) / "config.yaml").read_text()


@pytest.mark.parametrize("launcher", [("joblib", "hydra.launcher.n_jobs=2"), ("submitit_local", "hydra.launcher.timeout_min=2")])
def test_cells_run_side_by_side_through_launchers_of_hydra(study, tmp_path: Path, launcher: tuple[str, str]) -> None:
    name, option = launcher
    pytest.importorskip(f"hydra_plugins.hydra_{name.removesuffix('_local')}_launcher")
    done = study("-m", "study=s", f"hydra/launcher={name}", option, "balance=fixed", "balance.weight=0.1,0.3")
    assert done.returncode == 1, done.stderr
    assert rows(done) == {
        "fixed0.1/seed0": "done",
        "fixed0.3/seed0": "failed: ZeroDivisionError: a defect",
    }
    assert len({line.split()[2] for line in begun(tmp_path)}) == 2


def test_cells_side_by_side_share_the_cores_and_put_their_name_before_each_line(study, tmp_path: Path) -> None:
    joblib = pytest.importorskip("joblib")
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ("-m", "study=s", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "balance=fixed")
    done = study(*words, "balance.weight=0.1,0.3", OMP_NUM_THREADS=None)
    threads = str(max(1, joblib.cpu_count() // 2))
    assert [line.split()[4] for line in begun(tmp_path)] == [threads] * 2
    assert "\nsudoku-qwen3vl-sft-fixed0.3/seed0: ZeroDivisionError: a defect\n" in done.stderr
    assert "Traceback" not in {line[:9] for line in done.stderr.splitlines()}, "no line is without a name"
    assert study(*words, "balance.weight=0.5,0.8", OMP_NUM_THREADS="3").returncode == 0
    assert [line.split()[4] for line in begun(tmp_path)][2:] == ["3", "3"], "the user's own choice is kept"


def test_cells_one_after_another_have_all_cores_and_stderr_to_themselves(study, tmp_path: Path) -> None:
    done = study("-m", "study=s", "balance=fixed", "balance.weight=0.3,0.5", OMP_NUM_THREADS=None)
    assert [line.split()[4] for line in begun(tmp_path)] == ["None", "None"]
    assert "\nZeroDivisionError: a defect\n" in done.stderr


def test_a_study_ends_with_the_comparison_of_its_finished_cells(study, tmp_path: Path) -> None:
    done = study("-m", "study=s", "balance=fixed", "balance.weight=0.3,0.5")
    assert done.returncode == 1, done.stderr
    # Changes 1, 1, 0, 0 within [-2, 2]: n = 4 + 2, centre 2 / 6, reach 1.96 sqrt(2 + 2 - 6 / 9) / 6 = .596.
    assert "fixed0.5: a_r gained 50.0 points more than a_p (95 % interval [-26.3, +93.0], n = 4): not resolved at this n." in done.stdout
    assert "fixed0.3" not in done.stdout.partition("accuracy in %")[2], "what failed is not compared"
    own = tmp_path / "mine" / "experiment" / "own.yaml"
    own.parent.mkdir(parents=True)
    own.write_text(
        "# @package _global_\nstudy: s\nhydra: {mode: MULTIRUN, sweeper: {cells: [balance=none, balance=fixed balance.weight=0.5]}}\n"
    )
    done = study("--config-dir=mine", "experiment=own", COLUMNS="100", TERM="xterm")
    assert done.returncode == 0, done.stderr
    table, _, comparison = done.stdout.partition("accuracy in %")
    assert "skipped, for it was done" in table
    assert max(map(len, comparison.splitlines())) <= 100 and "\x1b" not in comparison
    # Four changes of 1: centre 4 / 6, reach 1.96 sqrt(4 + 2 - 6 * 16 / 36) / 6 = .596.
    assert "none: a_r gained 100.0 points more than a_p (95 % interval [+7.0, +126.3], n = 4): clear of 0." in " ".join(comparison.split())
    # 2 of 4 pairs turned right, Agresti and Min: n = 6, centre 2 / 6, reach 1.96 sqrt(3 - 6 / 9) / 6 = .499.
    assert "0.5: a_p is 50.0 points higher than with none (95 % interval [-16.6, +83.2], n = 4): not resolved at this n." in " ".join(
        comparison.split()
    )


def test_samples_that_cannot_be_read_are_no_failure_of_the_study(study, tmp_path: Path) -> None:
    assert study("-m", "study=s", "seed=0").returncode == 0
    (tmp_path / "multirun/s" / CELL.format("none", 0) / "samples" / "test_000004.jsonl").write_text("{}\n")
    done = study("-m", "study=s", "seed=0")
    assert done.returncode == 0
    assert done.stderr.startswith("The cells could not be compared: Line 1 of ") and done.stderr.count("\n") == 1


def test_an_interrupted_study_compares_nothing(stopped_study, tmp_path: Path) -> None:
    done = stopped_study("-m", "study=s", "balance=fixed", "balance.weight=0.5,0.7")
    assert rows(done) == {"fixed0.5/seed0": "done", "fixed0.7/seed0": "interrupted"}
    assert "accuracy in %" not in done.stdout
