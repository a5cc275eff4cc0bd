"""The evaluations of one run: before training, on the way, after it; each logged, kept and timed.

Every point of a curve (`eval/*` in metrics.jsonl) is measured on the same samples: the first `num_curve_samples`. The evaluations before
and after training grade all `num_samples`; their curve points are computed from the first of those records, and nothing is decoded twice.
Each rank answers every so-many-th sample, and all ranks gather all answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from percasym.config.settings import Settings
from percasym.engine.base import Engine
from percasym.engine.ranks import Ranks
from percasym.runs.base import Run
from percasym.runs.requests import Stopped
from percasym.training.evaluate import METRICS, EvalResult, evaluate

T = TypeVar("T")

TEST = "test"
NUM_SAMPLES = "eval/num_samples"
"""Samples behind the other `eval/*` numbers of a step."""


class Evaluator:
    """Evaluates one model on the test split and writes what comes out into its run.

    When the run is asked to stop, an evaluation ends at the next answers and leaves nothing: it is made again.
    """

    def __init__(self, settings: Settings, run: Run, engine: Engine, ranks: Ranks) -> None:
        self.seconds = 0.0
        """Spent in evaluations so far."""
        self._settings, self._run, self._engine, self._ranks = settings, run, engine, ranks
        self._num_curve_samples = min(settings.evaluation.num_curve_samples, settings.evaluation.num_samples)

    def in_full(self, step: int, title: str) -> EvalResult:
        """Evaluate all samples after `step` updates, with a bar of its own."""
        num_samples = self._settings.evaluation.num_samples
        with self._run.progress(3 * len(self._own(num_samples)), title) as bar:
            finished = 0

            def advance(num_rows: int) -> None:
                nonlocal finished
                finished += num_rows
                bar.advance(finished)

            return self._examine(step, num_samples, advance)

    def on_the_way(self, step: int) -> None:
        """Evaluate the fewer samples of a curve; the bar of training stays the only one."""
        with suppress(Stopped):  # The trainer hears it too, and has something to keep.
            self._examine(step, self._num_curve_samples, lambda num_rows: None)

    def missed(self, step: int) -> bool:
        """Is an evaluation on the way due after `step` steps, and not among what the run has said?"""
        due = self._settings.paradigm.evaluates_after(step)
        return due and step not in (self._ranks.broadcast(lambda: self._run.logged(f"eval/{METRICS[0]}")) or ())

    def kept(self, step: int) -> EvalResult:
        """An evaluation that an interrupted run left behind."""
        records = self._ranks.broadcast(lambda: self._run.read_samples(TEST, step))
        assert records is not None, f"{self._run.path} has a checkpoint and no evaluation of step {step}"
        return EvalResult.of(records)

    def _own(self, num_samples: int) -> range:
        return range(self._ranks.rank, num_samples, self._ranks.num_ranks)

    def _examine(self, step: int, num_samples: int, advance: Callable[[int], None]) -> EvalResult:
        began = time.perf_counter()
        own = self._records(num_samples, advance)
        shares = self._ranks.gather(self._run.requests.stop or own)  # A rank that was asked to stop may be the only one.
        if stops := [share for share in shares if isinstance(share, int)]:
            raise Stopped(max(stops))
        result = EvalResult.of(interleaved([share for share in shares if not isinstance(share, int)]))
        self._run.samples(TEST, step, result.records)
        point = EvalResult.of(result.records[: self._num_curve_samples])
        self._run.log(step, {NUM_SAMPLES: len(point.records)})
        for name, estimate in point.metrics.items():
            low, high = estimate.ci95
            self._run.log(step, {f"eval/{name}": estimate.mean, f"eval/{name}/lo": low, f"eval/{name}/hi": high})
        self.seconds += time.perf_counter() - began
        return result

    def _records(self, num_samples: int, advance: Callable[[int], None]) -> Sequence[dict[str, Any]]:
        """This rank's samples, answered and graded; none once it is asked to stop."""

        def advance_unless_stopped(num_rows: int) -> None:
            if self._run.requests.stop:
                raise Stopped(self._run.requests.stop)
            advance(num_rows)

        with suppress(Stopped), self._engine.gathered_weights() as model:
            advance_unless_stopped(0)
            return evaluate(
                model=model,
                family=self._settings.family,
                task=self._settings.task,
                settings=self._settings.evaluation,
                split=TEST,
                indices=self._own(num_samples),
                advance=advance_unless_stopped,
            ).records
        return ()


def interleaved(shares: Sequence[Sequence[T]]) -> list[T]:
    """What all ranks have, in the order of samples.

    >>> interleaved([[{"index": 0}, {"index": 2}], [{"index": 1}]])
    [{'index': 0}, {'index': 1}, {'index': 2}]
    """
    return [shares[index % len(shares)][index // len(shares)] for index in range(sum(map(len, shares)))]
