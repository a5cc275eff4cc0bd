"""A whole run on a blank model: what it leaves behind, and what a second command does with it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

CELL = Path("multirun/main/sudoku-qwen3vl-sft-none-smoke/seed0")


@pytest.fixture
def train(command, blank: Path):
    """`train("balance=ngdiff")`: a run of four steps on two samples."""
    few = ["scale=smoke", "engine=torch", "paradigm.steps=4", "paradigm.batch_size=2", "paradigm.eval_every=2", "paradigm.save_every=1"]
    tiny = ["evaluation.num_samples=2", "evaluation.num_curve_samples=1", "evaluation.max_new_tokens=4", f"model.path={blank}"]
    return lambda *words: command(*few, *tiny, *words)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def curve(path: Path) -> list[dict]:
    """metrics.jsonl without what a clock wrote."""
    return [{key: value for key, value in line.items() if "second" not in key} for line in lines(path)]


def test_a_run_leaves_everything_that_reports_are_made_of(train, tmp_path: Path) -> None:
    answer = train()
    assert answer.code == 0, answer.err
    run = tmp_path / CELL
    found = {path.name for path in run.iterdir()}
    assert found == {".lock", "config.yaml", "meta.json", "metrics.jsonl", "samples", "checkpoints", "final", "summary.json", "curves.png"}
    assert [path for path in tmp_path.iterdir() if path.name != "multirun"] == [], "nothing lies scattered"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "done"
    names = {"end_to_end", "perception", "perception_graded", "reasoning", "reasoning_text", "perception_text", "faithful"}
    for part, more in (("before", set()), ("after", set()), ("gain", {"via_perception", "via_reasoning", "via_both", "otherwise"})):
        assert set(summary[part]) == names | more
        assert all(set(estimate) == {"mean", "ci95", "n"} for estimate in summary[part].values())
    assert set(summary["share"]) == {"tokens", "loss", "gradient"}
    assert all(0 < share < 1 for share in summary["share"].values())
    assert set(summary["seconds"]) == {"setup", "train", "evaluate"}
    assert "end to end" in answer.out
    assert f"Curves: {CELL}/curves.png" in answer.out
    evaluated = [line["step"] for line in lines(run / "metrics.jsonl") if "eval/end_to_end" in line]
    assert evaluated == [0, 2, 4]


def test_the_final_model_loads_with_plain_transformers(train, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    train()
    final = tmp_path / CELL / "final"
    model = AutoModelForImageTextToText.from_pretrained(final)
    trained = AutoModelForImageTextToText.from_pretrained(tmp_path / CELL / "checkpoints" / "step_000004" / "model")
    assert all(bool((a == b).all()) for a, b in zip(model.parameters(), trained.parameters(), strict=True))
    assert AutoTokenizer.from_pretrained(final).chat_template
    assert AutoImageProcessor.from_pretrained(final, backend="pil").merge_size == 2


def test_a_finished_run_is_not_repeated(train, tmp_path: Path) -> None:
    train()
    before = (tmp_path / CELL / "meta.json").read_bytes()
    answer = train()
    assert answer.code == 0
    assert answer.out.startswith(f"{CELL} is finished; run.overwrite=true would repeat it.")
    assert "end to end" in answer.out
    assert (tmp_path / CELL / "meta.json").read_bytes() == before
    refused = train("paradigm.lr=0.5")
    assert refused.code == 2
    assert re.search(r"holds a run with paradigm\.lr=0\.001, this one asks for paradigm\.lr=0\.5\.", refused.err)
    assert train("paradigm.lr=0.5", "run.overwrite=true").code == 0


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(train, tmp_path: Path, interrupt_at) -> None:
    assert train(f"hydra.run.dir={tmp_path / 'whole'}").code == 0
    steps = interrupt_at(4)
    stopped = train()
    assert stopped.code == 130
    assert stopped.err.endswith(f"Interrupted. The same command resumes {CELL}.\n")
    assert json.loads((tmp_path / CELL / "meta.json").read_text())["status"] == "interrupted"
    assert train().code == 0
    assert len(steps) == 5, "only the step that was lost is repeated"
    assert curve(tmp_path / CELL / "metrics.jsonl") == curve(tmp_path / "whole" / "metrics.jsonl")
    one, other = (json.loads((run / "summary.json").read_text()) for run in (tmp_path / CELL, tmp_path / "whole"))
    assert one | {"seconds": None} == other | {"seconds": None}


def test_a_run_with_adapters_leaves_an_adapter_that_the_next_run_starts_from(train, tmp_path: Path) -> None:
    answer = train("model.lora.rank=2", "model.gradient_checkpointing=true", "balance=ngdiff", "study=adapters")
    assert answer.code == 0, answer.err
    run = tmp_path / "multirun/adapters/sudoku-qwen3vl-sft-ngdiff-smoke/seed0"
    for directory in (run / "final", run / "checkpoints/step_000004/model"):
        files = {path.name for path in directory.iterdir()}
        assert {"adapter_config.json", "adapter_model.safetensors"} <= files
        assert "model.safetensors" not in files, "the base is not copied"
    answer = train(f"model.path={run / 'final'}", "study=merged")
    assert answer.code == 0, answer.err
    assert (tmp_path / "multirun/merged/sudoku-qwen3vl-sft-none-smoke/seed0/final/model.safetensors").exists()
