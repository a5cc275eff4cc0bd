"""The checksums of a checkpoint are computed while the run goes on; nothing of it is lost, and no error of it is."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event

import pytest

from percasym.runs import checkpoint
from percasym.runs.background import Background
from percasym.runs.checkpoint import DONE, SUMS
from percasym.runs.rundir import RunDirectory


def save(directory: Path) -> None:
    (directory / "weights").write_text("1 2 3")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Event:
    """Holds the computation of checksums until it is set."""
    gate, real = Event(), checkpoint.write_sums

    def write_sums(directory: Path, **options) -> None:
        assert gate.wait(10), "the run waits for the sums that wait for the run"
        real(directory, **options)

    monkeypatch.setattr(checkpoint, "write_sums", write_sums)
    return gate


def test_a_run_goes_on_while_the_sums_of_its_checkpoint_are_computed(tmp_path: Path, gate: Event) -> None:
    run = RunDirectory.open(tmp_path, {})
    run.log(1, {"lr": 1.0})
    path = run.checkpoint(1, save)
    assert not path.exists(), "it appears when it is complete"
    run.log(2, {"lr": 1.0})
    gate.set()
    run.settle()
    assert {entry.name for entry in path.iterdir()} == {"weights", SUMS, DONE}
    assert json.loads((path / DONE).read_text())["num_lines"] == 1, "lines logged meanwhile are not part of it"
    assert run.latest_checkpoint() == (1, path)


@pytest.mark.parametrize("end", ["checkpoint", "final", "finish", "failed", "interrupted", "latest_checkpoint"])
def test_whatever_comes_next_waits_for_the_checkpoint(tmp_path: Path, gate: Event, end: str) -> None:
    run = RunDirectory.open(tmp_path, {})
    path = run.checkpoint(1, save)
    gate.set()
    words = {"checkpoint": (2, save), "final": (save,), "finish": ({},), "failed": ("a defect",)}
    getattr(run, end)(*words.get(end, ()))
    assert (path / DONE).exists()


def test_what_goes_wrong_meanwhile_is_raised_once_and_costs_that_checkpoint_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory.open(tmp_path, {})
    run.checkpoint(1, save)
    run.settle()

    def full(directory: Path, **options) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_sums", full)
        run.checkpoint(2, save)
        with pytest.raises(OSError, match="No space left"):
            run.checkpoint(3, save)
    run.settle()
    assert [entry.name for entry in (tmp_path / "checkpoints").iterdir()] == ["step_000001"], "and no half of one"
    assert run.latest_checkpoint() == (1, tmp_path / "checkpoints" / "step_000001")


def test_a_run_that_stops_at_once_does_not_wait_for_long(tmp_path: Path, gate: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    from percasym.runs import rundir

    monkeypatch.setattr(rundir, "SECONDS_TO_COMPLETE", 0.05)
    run = RunDirectory.open(tmp_path, {})
    run.checkpoint(1, save)
    run.interrupted()
    assert json.loads((tmp_path / "meta.json").read_text())["status"] == "interrupted"
    gate.set()
    run.settle()


def test_one_piece_of_work_follows_the_other() -> None:
    done: list[int] = []
    background = Background()
    for number in range(20):
        background.start(lambda number=number: done.append(number))
    background.wait()
    background.wait()
    assert done == list(range(20))
