"""Whole runs of other families: nothing but `model=` differs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from percasym.models import locate
from tests.other_families import write_family


@pytest.mark.parametrize("task", ["sudoku", "graph_coloring"])
def test_a_run_of_internvl35_ends_like_any_other(command, blank_internvl35: Path, tmp_path: Path, task: str) -> None:
    few = ["scale=smoke", "engine=torch", "paradigm.steps=2", "paradigm.batch_size=2", "paradigm.micro_batch_size=1"]
    tiny = ["evaluation.num_samples=1", "evaluation.num_curve_samples=1", "evaluation.max_new_tokens=4"]
    answer = command(*few, *tiny, f"task={task}", "model=internvl35", f"model.path={blank_internvl35}", "balance=ngdiff")
    assert answer.code == 0, answer.err
    run = tmp_path / f"multirun/main/{task}-internvl35-sft-ngdiff-smoke/seed0"
    assert json.loads((run / "summary.json").read_text())["status"] == "done"
    assert json.loads((run / "meta.json").read_text())["images"] == {"height": 96, "width": 96, "tokens": 36}
    from transformers import AutoModelForImageTextToText

    assert type(AutoModelForImageTextToText.from_pretrained(run / "final")).__name__ == "InternVLForConditionalGeneration"


def test_a_packaged_checkpoint_that_is_not_there_is_one_sentence(command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(locate, "PACKAGED", tmp_path / "nothing")
    answer = command("scale=smoke", "model=internvl35")
    assert answer.code == 2
    assert answer.err == (
        "The tiny checkpoint of internvl35 is not packaged yet. Make it with `make base FAMILY=internvl35 SIZE=tiny`, or set model.path.\n"
    )  # fmt: skip
    assert not (tmp_path / "multirun").exists() or not list((tmp_path / "multirun").rglob("*.json"))


OTHERS = ["gemma3", *(pytest.param(name, marks=pytest.mark.slow) for name in ("idefics3", "qwen2_5_vl", "llava_onevision"))]


@pytest.mark.parametrize("name", OTHERS)
def test_a_run_of_a_family_that_has_no_name_ends_like_any_other(command, tmp_path: Path, name: str) -> None:
    write_family(tmp_path / name, name)
    few = ["scale=smoke", "engine=torch", "paradigm.steps=2", "paradigm.batch_size=2", "paradigm.micro_batch_size=1"]
    tiny = ["evaluation.num_samples=2", "evaluation.num_curve_samples=1", "evaluation.max_new_tokens=4"]
    frozen = ["model.freeze=[vision,projector]"] if name == "gemma3" else []
    answer = command(*few, *tiny, *frozen, "task=sudoku", "model=auto", f"model.path={tmp_path / name}", "balance=ngdiff")
    assert answer.code == 0, answer.err
    run = tmp_path / "multirun/main/sudoku-auto-sft-ngdiff-smoke/seed0"
    assert json.loads((run / "summary.json").read_text())["status"] == "done"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    weights = [line["balance/weight"] for line in lines if "balance/weight" in line]
    assert len(weights) == 2 and all(0 < weight < 1 for weight in weights)
    again = command(*few, *tiny, "task=sudoku", "model=auto", f"model.path={run / 'final'}", "study=again")
    assert again.code == 0, again.err


def test_a_checkpoint_of_another_family_is_one_sentence_from_train_py(command, blank_internvl35: Path) -> None:
    answer = command("scale=smoke", "model=qwen3vl", f"model.path={blank_internvl35}")
    assert answer.code == 2
    said = f"{blank_internvl35} is of type internvl, and model=qwen3vl reads qwen3_vl or qwen3_vl_moe. Set model=internvl35.\n"
    assert answer.err == said


def test_reinforcement_learning_of_a_family_that_has_no_name(command, tmp_path: Path) -> None:
    write_family(tmp_path / "qwen2_5_vl", "qwen2_5_vl")
    few = ["scale=smoke", "engine=torch", "paradigm=rl", "paradigm.steps=1", "paradigm.batch_size=2", "rollout.max_new_tokens=8"]
    tiny = ["evaluation.num_samples=1", "evaluation.num_curve_samples=1", "evaluation.max_new_tokens=4"]
    answer = command(*few, *tiny, "task=sudoku", "model=auto", f"model.path={tmp_path / 'qwen2_5_vl'}", "balance=fixed")
    assert answer.code == 0, answer.err
