"""Every point of a curve is measured on one subset of the test samples; the summary and the samples file keep the full evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from percasym.app import evaluator as evaluator
from percasym.app.evaluator import Evaluator
from percasym.engine.ranks import Ranks
from percasym.report.curves import curve_of
from percasym.report.load import load_run
from percasym.rollout.native import NativeAnswers
from percasym.runs.rundir import RunDirectory
from percasym.training.evaluate import METRICS, EvalResult
from percasym.training.sampled import SAMPLED_METRICS

RIGHT = (True, False, False, True, True, True)
"""Grade of each test sample, in every metric: 1 of the first 2 is right, 4 of all 6."""


class Engine:
    """An engine without a model."""

    @contextmanager
    def gathered_weights(self) -> Iterator[None]:
        yield


def graded(index: int) -> dict[str, Any]:
    return {"key": {"task": "sudoku", "split": "test", "seed": 0, "index": index}, "truth": f"puzzle {index}",
            "grades": dict.fromkeys(METRICS, RIGHT[index])}  # fmt: skip


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The samples of each evaluation that was decoded."""
    calls: list[list[int]] = []

    def evaluate(*, indices: Sequence[int], **_: object) -> EvalResult:
        calls.append(list(indices))
        return EvalResult.of([graded(index) for index in indices])

    monkeypatch.setattr(evaluator, "evaluate", evaluate)
    return calls


def evaluator_of(path: Path, *, num_samples: int, num_curve_samples: int) -> tuple[RunDirectory, Evaluator]:
    evaluation = SimpleNamespace(num_samples=num_samples, num_curve_samples=num_curve_samples)
    settings: Any = SimpleNamespace(evaluation=evaluation, family=None, task=None)
    run, engine = RunDirectory.open(path, {}), Engine()
    return run, Evaluator(settings, run, engine, Ranks(0, 1, torch.device("cpu")), NativeAnswers(family=None))  # type: ignore[arg-type]


class NoSampler:
    """A rollout engine that is only refreshed."""

    def __init__(self) -> None:
        self.refreshed = 0

    def refresh(self, model: object, gather: object = None) -> None:
        self.refreshed += 1


def test_sampled_answers_are_evaluated_on_the_same_prompts_at_every_point_and_read_again_on_resume(
    tmp_path: Path, decoded: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []

    def evaluate_sampled(*, indices: Sequence[int], **_: object) -> EvalResult:
        asked.append(list(indices))
        records = [graded(index) | {"grades": {"sampled_end_to_end": index / 4, "sampled_reasoning": None}} for index in indices]
        return EvalResult.of(records, SAMPLED_METRICS)

    monkeypatch.setattr(evaluator, "evaluate_sampled", evaluate_sampled)
    evaluation = SimpleNamespace(num_samples=6, num_curve_samples=2, num_sampled=3, samples_per_prompt=2)
    settings: Any = SimpleNamespace(evaluation=evaluation, family=None, task=None)
    run, sampler = RunDirectory.open(tmp_path, {}), NoSampler()
    made = Evaluator(settings, run, Engine(), Ranks(0, 1, torch.device("cpu")), NativeAnswers(family=None), sampler)  # type: ignore[arg-type]
    before = made.evaluate_all(0, "before")
    made.evaluate_curve(1)
    after = made.evaluate_all(2, "after")
    assert asked == [[0, 1, 2]] * 3, "the number of a curve's greedy samples does not count"
    assert decoded == [[0, 1, 2, 3, 4, 5], [0, 1], [0, 1, 2, 3, 4, 5]]
    assert sampler.refreshed == 3
    assert after.metrics["sampled_end_to_end"].mean == pytest.approx(0.25)
    assert after.gain_over(before)["sampled_end_to_end"].mean == 0.0
    assert made.recorded(0).metrics == before.metrics
    assert load_run(tmp_path).series("eval/sampled_end_to_end").values == [0.25, 0.25, 0.25]
    assert load_run(tmp_path).grades_after[("sudoku", "test", 0, 2)].grades["sampled_end_to_end"] == 0.5  # type: ignore[index]


def test_the_first_and_the_last_point_are_of_the_samples_between_them(tmp_path: Path, decoded: list[list[int]]) -> None:
    run, made = evaluator_of(tmp_path, num_samples=6, num_curve_samples=2)
    before = made.evaluate_all(0, "before")
    made.evaluate_curve(1)
    after = made.evaluate_all(2, "after")
    assert decoded == [[0, 1, 2, 3, 4, 5], [0, 1], [0, 1, 2, 3, 4, 5]], "no sample is decoded a second time for the curve"
    assert before.metrics["reasoning"].mean == after.metrics["reasoning"].mean == pytest.approx(4 / 6), "the summary's numbers"
    assert before.metrics["reasoning"].n == 6
    assert len(run.read_samples("test", 2) or ()) == 6, "the samples file is whole"
    record = load_run(tmp_path)
    for name in METRICS:
        assert record.series(f"eval/{name}").values == [0.5, 0.5, 0.5], "1 of the first 2 at every step"
    # Wilson's interval of 1 in 2: (.5 + 1.92 / 2 -+ 1.96 sqrt(.5 * .5 / 2 + 3.84 / 16)) / (1 + 3.84 / 2), that is .095 to .905.
    assert record.series("eval/reasoning/lo").values == pytest.approx([0.0945] * 3, abs=1e-4)
    assert record.series("eval/num_samples").values == [2, 2, 2]
    assert curve_of(record, "eval/reasoning").about == "n = 2 test samples"


def test_a_curve_has_at_most_the_samples_of_the_full_evaluation(tmp_path: Path, decoded: list[list[int]]) -> None:
    _, made = evaluator_of(tmp_path, num_samples=3, num_curve_samples=6)
    made.evaluate_curve(1)
    made.evaluate_all(2, "after")
    assert decoded == [[0, 1, 2], [0, 1, 2]]
    assert load_run(tmp_path).series("eval/num_samples").values == [3, 3]


def test_a_point_of_the_full_evaluation_would_be_noticed(tmp_path: Path, decoded: list[list[int]]) -> None:
    """The first test can fail: an evaluator that logs all samples at the end draws a rise from 1 / 2 to 4 / 6 that no training made."""
    _, made = evaluator_of(tmp_path, num_samples=6, num_curve_samples=2)
    made.evaluate_curve(1)
    made._num_curve_samples = 6
    made.evaluate_all(2, "after")
    record = load_run(tmp_path)
    assert record.series("eval/reasoning").values == [0.5, pytest.approx(4 / 6)]
    assert [*curve_of(record, "eval/reasoning").others] == [2], "and a figure does not join the two"
