"""Ranks above 0 write their part of a checkpoint and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from percasym.runs.base import NullRun
from percasym.runs.identity import mark_ended
from percasym.runs.rundir import RunDirectory


def test_a_null_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rank = NullRun(tmp_path / "run")
    rank.log(1, {"loss": 1.0})
    rank.warn("Warning: nobody reads this twice.")
    rank.samples("test", 0, [{"index": 0}])
    with rank.progress(2, "training") as bar:
        bar.advance(2, loss=1.0)
    rank.final(lambda path: path.mkdir(parents=True))
    rank.finish({})
    rank.interrupted()
    rank.failed("nothing")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


def test_a_warning_is_printed_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run = RunDirectory.open(tmp_path, {"seed": 0})
    run.warn("Warning: a.")
    run.warn("Warning: b.")
    assert capsys.readouterr().err == "Warning: a.\nWarning: b.\n"
    assert json.loads((tmp_path / "meta.json").read_text())["warnings"] == ["Warning: a.", "Warning: b."]


def test_a_null_run_writes_into_the_checkpoint_of_rank_0(tmp_path: Path) -> None:
    first, second = RunDirectory.open(tmp_path, {"seed": 0}), NullRun(tmp_path)

    def both(directory: Path) -> None:
        (directory / "first").touch()
        second.checkpoint(3, lambda place: (place / "second").touch())

    path = first.checkpoint(3, both)
    first.settle()
    assert {file.name for file in path.iterdir()} == {"DONE", "SHA256SUMS", "first", "second"}


def test_the_status_of_a_run_whose_processes_were_killed_can_be_set(tmp_path: Path) -> None:
    def meta() -> dict:
        return json.loads((tmp_path / "meta.json").read_text())

    assert not mark_ended(tmp_path, "failed", reason="killed"), "no run, no status"
    run = RunDirectory.open(tmp_path, {"seed": 0})
    assert mark_ended(tmp_path, "interrupted")
    assert meta()["status"] == "interrupted"
    run = RunDirectory.open(tmp_path, {"seed": 0})
    run.failed("Connection closed by peer")  # The error of a rank whose peer failed.
    assert mark_ended(tmp_path, "failed", reason="Rank 1 failed: ValueError: the cause")
    assert (meta()["status"], meta()["reason"]) == ("failed", "Rank 1 failed: ValueError: the cause")
    run = RunDirectory.open(tmp_path, {"seed": 0})
    run.finish({})
    mark_ended(tmp_path, "failed", reason="late")
    assert meta()["status"] == "done"
