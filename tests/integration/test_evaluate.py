"""`percasym evaluate`: any checkpoint on the test split, without training; the directory is what report and compare read."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from percasym.cli.main import main
from tests.unit.tasks.outside_rows import helix_rows, write_helix_tsv

WORDS = ["evaluation.num_samples=3", "evaluation.num_curve_samples=2", "evaluation.max_new_tokens=8", "evaluation.batch_size=4"]
TRAIN = [
    "scale=smoke", "engine=torch", "paradigm.steps=1", "paradigm.batch_size=2", "paradigm.micro_batch_size=2",
    "paradigm.lr=1e-2", *WORDS,
]  # fmt: skip


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "samples" / "test_000000.jsonl").read_text().splitlines()]


def evaluate(*words: str) -> int:
    return main(["evaluate", *words, *WORDS])


def test_a_checkpoint_is_evaluated_as_a_run_evaluates_it(command, blank: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert command(*TRAIN, f"model.path={blank}").code == 0
    (run,) = (path.parent for path in (tmp_path / "multirun" / "main").rglob("summary.json"))
    assert evaluate(str(run), "scale=smoke", "--out", "after") == 0
    capsys.readouterr()
    after = [json.loads(line) for line in (run / "samples" / "test_000001.jsonl").read_text().splitlines()]
    assert records(Path("after")) == after, "the run's own evaluation of its last weights"
    summary = json.loads(Path("after", "summary.json").read_text())
    assert summary["after"]["perception"]["n"] == 3 and "before" not in summary
    assert json.loads(Path("after", "meta.json").read_text())["kind"] == "evaluation"

    assert evaluate(str(run / "checkpoints" / "step_000001"), "scale=smoke", "--out", "step") == 0
    assert records(Path("step")) == after, "a training checkpoint holds the same weights"
    assert evaluate(str(blank), "scale=smoke", "--out", "before") == 0
    assert records(Path("before")) != after, "the weights have moved"
    assert main(["compare", "before", "after"]) == 0
    assert "B - A, paired" in capsys.readouterr().out

    written = Path("after", "meta.json").stat().st_mtime_ns
    assert evaluate(str(run), "scale=smoke", "--out", "after") == 0, "a finished evaluation is printed again"
    assert "end to end" in capsys.readouterr().out
    assert Path("after", "meta.json").stat().st_mtime_ns == written
    assert evaluate(str(run), "scale=smoke", "seed=1", "evaluation.seed=1", "--out", "after") == 2
    assert "after holds a run with evaluation.seed=0" in capsys.readouterr().err
    weights = run / "final" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-4:] = b"\0\0\0\0"
    weights.write_bytes(content)
    assert evaluate(str(run), "scale=smoke", "--out", "after") == 2, "other weights at the same path"
    assert "checkpoint.fingerprint" in capsys.readouterr().err


def test_the_default_directory_is_named_after_task_and_checkpoint(blank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert evaluate(str(blank), "scale=smoke", "study=mine") == 0
    (found,) = (path.parent for path in (tmp_path / "multirun" / "mine").rglob("summary.json"))
    assert found.name.startswith("sudoku-qwen3vl-evaluate-") and found.name.endswith(blank.name)


def test_all_items_of_an_outside_benchmark_are_evaluated(
    blank: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_helix_tsv(tmp_path, helix_rows())
    words = [str(blank), "scale=smoke", "task=mm_helix", f"task.path={path}", "evaluation.max_new_tokens=8", "evaluation.batch_size=4"]
    assert main(["evaluate", *words, "--out", "helix"]) == 0
    assert "Items: 1 connectivity_test, 1 eulerian_cycle" in capsys.readouterr().out
    summary = json.loads(Path("helix", "summary.json").read_text())
    assert summary["after"]["end_to_end"]["n"] == summary["after"]["reasoning_text"]["n"] == 8
    assert {record["truth"] for record in records(Path("helix"))} >= {"0: 1 3\n1: 0 2\n2: 1 3\n3: 0 2"}
    assert main(["report", "helix"]) == 0
    assert main(["evaluate", *words, "evaluation.num_samples=2", "--out", "two"]) == 0
    assert len(records(Path("two"))) == 2
    capsys.readouterr()
    assert main(["evaluate", *words, "evaluation.num_samples=9", "--out", "nine"]) == 2
    assert "has 8 test rows" in capsys.readouterr().err


def test_what_cannot_be_evaluated_is_one_sentence(
    blank: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "meta.json").write_text("{}")
    for words, sentence in {
        ("nowhere",): "nowhere is neither a directory with the config.json of a known family nor a released model",
        (str(tmp_path / "empty"),): "is neither a directory with the config.json",
        (str(unfinished),): "is a run without final/",
        (str(blank), "another"): "takes one checkpoint",
        (str(blank), "paradigm=rl"): "paradigm=rl is an option of training",
        (str(blank), "task.givens=[1,2]"): "task.givens must be",
        (str(blank), "evaluation.engine=vlm"): "evaluation.engine must be native or vllm, got 'vlm'",
    }.items():
        assert evaluate(*words) == 2, words
        shown = capsys.readouterr().err
        assert sentence in shown and shown.count("\n") == 1, shown
    assert not (tmp_path / "multirun").exists()


def test_a_checkpoint_of_a_stranger_imports_no_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site" / "evil").mkdir(parents=True)
    (tmp_path / "site" / "evil" / "__init__.py").write_text("import os\nos.makedirs('owned', exist_ok=True)\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    step = tmp_path / "run" / "checkpoints" / "step_000001"
    step.mkdir(parents=True)
    (step / "DONE").touch()
    (tmp_path / "run" / "meta.json").write_text('{"id": "0", "status": "failed", "seconds": 0.0, "started": "2026-01-01T00:00:00"}')
    (tmp_path / "run" / "config.yaml").write_text("seed: 0\nplugins: [evil]\nmodel: {_target_: evil.Family}\n")
    assert evaluate(str(step), "scale=smoke") == 2
    assert not (tmp_path / "owned").exists()
    said = "model._target_=evil.Family lies outside percasym; add its package to plugins=[...] if you trust it.\n"
    assert capsys.readouterr().err == said
    assert evaluate(str(step), "scale=smoke", "plugins=[evil]") == 2
    assert (tmp_path / "owned").exists(), "the user named it, so it was imported"
