"""Cells of a study share the evaluation before training, and measure it again where its records are not as a run writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from percasym.app import evaluator
from percasym.runs import rundir
from percasym.training.evaluate import evaluate

STUDY = Path("multirun/main")
CELL = "sudoku-qwen3vl-sft-{}-smoke/seed0"


def test_a_second_cell_takes_over_the_evaluation_before_training(command, blank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "_commit", lambda root: ("0" * 40, False))
    decoded: list[int] = []

    def counted(**given):
        found = evaluate(**given)
        decoded.append(len(found.records))
        return found

    monkeypatch.setattr(evaluator, "evaluate", counted)
    few = ["scale=smoke", "paradigm.steps=1", "paradigm.batch_size=2", "evaluation.num_samples=3", "evaluation.num_curve_samples=2"]

    def train(balance: str) -> tuple[list[int], str]:
        decoded.clear()
        answer = command(*few, "evaluation.max_new_tokens=4", f"model.path={blank}", f"balance={balance}")
        assert answer.code == 0, answer.err
        return list(decoded), answer.out + answer.err

    assert train("none")[0] == [3, 3]
    records = STUDY / CELL.format("none") / "samples" / "test_000000.jsonl"
    again, said = train("ngdiff")
    assert again == [3], "the evaluation after training alone"
    assert f"evaluation before: that of {CELL.format('none')}" in said
    assert records.read_text() == (STUDY / CELL.format("ngdiff") / "samples" / "test_000000.jsonl").read_text()
    summaries = [json.loads((STUDY / CELL.format(name) / "summary.json").read_text()) for name in ("none", "ngdiff")]
    assert summaries[0]["before"] == summaries[1]["before"]
    points = [json.loads((STUDY / CELL.format(name) / "metrics.jsonl").read_text().splitlines()[1]) for name in ("none", "ngdiff")]
    assert points[0] == points[1] and "eval/end_to_end" in points[0]

    for name in ("none", "ngdiff"):
        (STUDY / CELL.format(name) / "samples" / "test_000000.jsonl").write_text(records.read_text().replace('"grades"', '"marks"'))
    assert train("dwa")[0] == [3, 3]
