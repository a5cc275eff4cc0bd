"""The evaluations of one run: before training, on the way, after it; each logged, kept and timed."""

from __future__ import annotations

import time
from collections.abc import Callable

from transformers import PreTrainedModel

from percasym.runs.rundir import Run
from percasym.settings import Settings
from percasym.trainers.evaluate import METRICS, EvalResult, evaluate

TEST = "test"


class Examiner:
    """Evaluates one model on the test split and writes what comes out into its run."""

    def __init__(self, settings: Settings, run: Run, model: PreTrainedModel) -> None:
        self.seconds = 0.0
        """Spent in evaluations so far."""
        self._settings, self._run, self._model = settings, run, model

    def in_full(self, step: int, title: str) -> EvalResult:
        """Evaluate all samples after `step` updates, with a bar of its own."""
        num_samples = self._settings.evaluation.num_samples
        with self._run.progress(3 * num_samples, title) as bar:
            finished = 0

            def advance(num_rows: int) -> None:
                nonlocal finished
                finished += num_rows
                bar.advance(finished)

            return self._examine(step, num_samples, advance)

    def on_the_way(self, step: int) -> None:
        """Evaluate the fewer samples of a curve; the bar of training stays the only one."""
        self._examine(step, self._settings.evaluation.num_curve_samples, lambda num_rows: None)

    def kept(self, step: int) -> EvalResult:
        """An evaluation that an interrupted run left behind."""
        records = self._run.read_samples(TEST, step)
        assert records is not None, f"{self._run.path} has a checkpoint and no evaluation of step {step}"
        return EvalResult(verdicts={name: [record["grades"][name] for record in records] for name in METRICS}, records=records)

    def _examine(self, step: int, num_samples: int, advance: Callable[[int], None]) -> EvalResult:
        began = time.perf_counter()
        result = evaluate(
            model=self._model,
            family=self._settings.family,
            task=self._settings.task,
            settings=self._settings.evaluation,
            split=TEST,
            num_samples=num_samples,
            advance=advance,
        )
        self._run.samples(TEST, step, result.records)
        for name, estimate in result.metrics.items():
            low, high = estimate.ci95
            self._run.log(step, {f"eval/{name}": estimate.mean, f"eval/{name}/lo": low, f"eval/{name}/hi": high})
        self.seconds += time.perf_counter() - began
        return result
