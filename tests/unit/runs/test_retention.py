"""Older checkpoints are deleted; the last ones and the best are kept."""

import json
from pathlib import Path

import pytest

from percasym.runs import checkpoint
from percasym.runs.checkpoint import DONE, Retention, write_checkpoint
from percasym.runs.rundir import RunDirectory

CONFIG = {"seed": 0}


def save(directory: Path) -> None:
    (directory / "weights").write_text("1 2 3")


def kept(path: Path) -> list[int]:
    return sorted(int(entry.name.removeprefix("step_")) for entry in (path / "checkpoints").iterdir())


def work(path: Path, keep: Retention, scores: dict[int, float | None], steps: range = range(1, 6)) -> RunDirectory:
    run = RunDirectory.open(path, CONFIG, keep=keep)
    for step in steps:
        run.log(step, {"eval/end_to_end": scores[step]} if step in scores else {"lr": 1.0})
        run.checkpoint(step, save)
    run.settle()
    return run


def test_the_last_checkpoints_stay(tmp_path: Path) -> None:
    work(tmp_path, Retention(last=2), {})
    assert kept(tmp_path) == [4, 5]


def test_all_stay_where_nothing_is_said(tmp_path: Path) -> None:
    work(tmp_path, Retention(), {})
    assert kept(tmp_path) == [1, 2, 3, 4, 5]


def test_the_best_stays_too_and_the_first_of_equals_is_the_best(tmp_path: Path) -> None:
    work(tmp_path, Retention(last=1, best="eval/end_to_end"), {1: 0.1, 2: 0.4, 3: 0.4, 4: None, 5: 0.2})
    assert kept(tmp_path) == [2, 5]


def test_the_best_outlives_an_interruption(tmp_path: Path) -> None:
    keep = Retention(last=1, best="eval/end_to_end")
    work(tmp_path, keep, {2: 0.4, 3: 0.1}, range(1, 4)).interrupted()
    work(tmp_path, keep, {4: 0.2}, range(4, 6))
    assert kept(tmp_path) == [2, 5]


def test_a_damaged_checkpoint_does_not_take_the_place_of_a_whole_one(tmp_path: Path) -> None:
    work(tmp_path, Retention(last=2), {}, range(1, 4)).interrupted()
    (tmp_path / "checkpoints" / "step_000003" / "weights").write_text("1 2")
    run = RunDirectory.open(tmp_path, CONFIG, keep=Retention(last=2))
    assert run.remarks == [f"{tmp_path}/checkpoints/step_000003 is damaged (weights was changed): the run goes on from what is before it."]
    assert run.latest_checkpoint() == (2, tmp_path / "checkpoints" / "step_000002")
    assert json.loads((tmp_path / "meta.json").read_text())["resumed"][0]["step"] == 2
    lines = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [1, 2], "lines after the checkpoint are deleted"
    run.log(3, {"lr": 1.0})
    run.checkpoint(3, save)
    run.settle()
    assert kept(tmp_path) == [2, 3]
    run.interrupted()
    assert RunDirectory.open(tmp_path, CONFIG).remarks == []


def test_a_kill_amid_deleting_leaves_nothing_that_could_be_taken_for_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(path: Path) -> None:
        raise KeyboardInterrupt

    for step in (1, 2):
        write_checkpoint(tmp_path / "checkpoints", step, save)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", kill)
        with pytest.raises(KeyboardInterrupt):
            Retention(last=1).prune(tmp_path / "checkpoints", newest=2, scores={})
    assert (tmp_path / "checkpoints" / "step_000001" / "weights").exists()
    assert not (tmp_path / "checkpoints" / "step_000001" / DONE).exists()
    Retention(last=1).prune(tmp_path / "checkpoints", newest=2, scores={})
    assert kept(tmp_path) == [2]
