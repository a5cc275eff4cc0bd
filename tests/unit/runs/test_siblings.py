"""Whose evaluation before training a run may take over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from percasym.runs import rundir
from percasym.runs.rundir import RunDirectory
from percasym.runs.siblings import same_start

RECORDS = "samples/test_000000.jsonl"
CONFIG: dict[str, Any] = {
    "seed": 0, "study": "s", "task": {"size": 4}, "model": {"path": None}, "balance": {"weight": 0.5}, "paradigm": {"lr": 0.1},
    "evaluation": {"num_samples": 3}, "tracker": {"on": False},
}  # fmt: skip
ABOUT = {"device": "cpu, 1 threads", "checkpoint": {"fingerprint": "a"}}


@pytest.fixture(autouse=True)
def clean_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "_commit", lambda root: ("0" * 40, False))


def run(folder: Path, name: str, about: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A run that was opened; the first one of a study is evaluated, too."""
    opened = RunDirectory.open(folder / name, CONFIG | changes, about=ABOUT | (about or {}))
    if not list(folder.glob(f"*/*/{RECORDS}")):
        opened.samples("test", 0, [{"key": 0}])
    return folder / name


def test_training_may_differ(tmp_path: Path) -> None:
    first = run(tmp_path / "s", "none/seed0")
    assert same_start(first, RECORDS) is None, "not from itself"
    for name, changes in {
        "none/seed1": {"seed": 1},
        "half/seed0": {"balance": {"weight": 0.9}},
        "long/seed0": {"paradigm": {"lr": 0.2}, "tracker": {"on": True}},
    }.items():
        assert same_start(run(tmp_path / "s", name, **changes), RECORDS) == first
    assert same_start(tmp_path / "s" / "none/seed1", "samples/sampled_000000.jsonl") is None, "that was not measured"


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"task": {"size": 9}}, {}),
        ({"model": {"path": "other"}}, {}),
        ({"evaluation": {"num_samples": 4}}, {}),
        ({"rollout": {"precision": "bfloat16"}}, {}),
        ({"study": "t"}, {}),
        ({}, {"device": "on 2 ranks, each cpu, 1 threads"}),
        ({}, {"checkpoint": {"fingerprint": "b"}}),
        ({}, {"data": {"fingerprint": "c"}}),
    ],
    ids=str,
)
def test_what_an_evaluation_depends_on_may_not(tmp_path: Path, changes: dict[str, Any], about: dict[str, Any]) -> None:
    run(tmp_path / "s", "none/seed0")
    assert same_start(run(tmp_path / "s", "other/seed0", about, **changes), RECORDS) is None


@pytest.mark.parametrize("commit", [("1" * 40, False), ("0" * 40, True), (None, None)], ids=str)
def test_other_code_may_not_either(tmp_path: Path, commit: tuple[str | None, bool | None], monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(tmp_path / "s", "none/seed0")
    monkeypatch.setattr(rundir, "_commit", lambda root: commit)
    second = run(tmp_path / "s", "none/seed1", seed=1)
    assert same_start(second, RECORDS) is None
    monkeypatch.setattr(rundir, "_commit", lambda root: ("0" * 40, False))
    third = run(tmp_path / "s", "none/seed2", seed=2)
    assert same_start(third, RECORDS) == first, "and nothing is taken from the changed one"


def test_plug_ins_may_have_changed(tmp_path: Path) -> None:
    run(tmp_path / "s", "none/seed0", plugins=["mine"])
    assert same_start(run(tmp_path / "s", "none/seed1", seed=1, plugins=["mine"]), RECORDS) is None


def test_a_neighbour_that_is_no_run_is_passed_over(tmp_path: Path) -> None:
    first = run(tmp_path / "s", "none/seed0")
    (tmp_path / "s" / "a" / "seed0" / "samples").mkdir(parents=True)
    (tmp_path / "s" / "a" / "seed0" / RECORDS).write_text("{}\n")
    linked = run(tmp_path / "s", "b/seed0")
    (linked / "samples").symlink_to(first / "samples")
    assert same_start(run(tmp_path / "s", "none/seed1", seed=1), RECORDS) == first
