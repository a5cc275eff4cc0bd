"""The evaluations of one run: before, during and after training; each logged, saved and timed.

Every point of a curve (`eval/*` in metrics.jsonl) is measured on the same samples: the first `num_curve_samples`. The evaluations before
and after training grade all `num_samples`; their curve points are computed from the first of those records, so nothing is decoded twice.
Rank r of R decodes the samples r, r + R, ..., and all ranks gather all records.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import Any, Protocol

from transformers import PreTrainedModel

from percasym.config.settings import Settings
from percasym.engine.base import Gather
from percasym.engine.ranks import Ranks, interleaved
from percasym.rollout.base import GreedyEngine, RolloutEngine
from percasym.runs.base import Run
from percasym.runs.records import SAMPLED_TEST, TEST, file_name, read_lines
from percasym.runs.requests import Stopped
from percasym.runs.siblings import same_start
from percasym.training.evaluate import METRICS, EvalResult, evaluate
from percasym.training.sampled import SAMPLED_METRICS, evaluate_sampled

NUM_SAMPLES = "eval/num_samples"
"""Samples behind the other `eval/*` numbers of a step."""


Records = Sequence[dict[str, Any]]


class EvaluatedEngine(Protocol):
    """The part of an engine that evaluations use."""

    def gathered_weights(self) -> AbstractContextManager[PreTrainedModel]:
        """Within the context, the model with all its weights."""
        ...

    def partitioned_weights(self) -> AbstractContextManager[tuple[PreTrainedModel, Gather | None]]:
        """Within the context, the model as ZeRO-3 has partitioned it, and how to complete one parameter."""
        ...


class Evaluator:
    """Evaluates one model on the test split and writes the results into its run.

    After a signal that stops the run, an evaluation ends at the next batch and writes nothing: the resumed run repeats it.
    """

    def __init__(
        self,
        settings: Settings,
        run: Run,
        engine: EvaluatedEngine,
        ranks: Ranks,
        greedy: GreedyEngine,
        sampler: RolloutEngine | None = None,
    ) -> None:
        """`sampler` answers `evaluation.num_sampled` prompts beside the greedy engine; None where that is 0."""
        self.seconds = 0.0
        """Seconds spent in evaluations so far."""
        self._settings, self._run, self._engine, self._ranks = settings, run, engine, ranks
        self._greedy, self._sampler = greedy, sampler
        self._num_curve_samples = min(settings.evaluation.num_curve_samples, settings.evaluation.num_samples)

    def evaluate_all(self, step: int, title: str) -> EvalResult:
        """Evaluate all samples after `step` updates, with a progress bar."""
        evaluation = self._settings.evaluation
        num_samples = evaluation.num_samples
        num_sampled = 0 if self._sampler is None else 2 * evaluation.samples_per_prompt * len(self._own(evaluation.num_sampled))
        with self._run.progress(3 * len(self._own(num_samples)) + num_sampled, title) as bar:
            finished = 0

            def advance(num_rows: int) -> None:
                nonlocal finished
                finished += num_rows
                bar.advance(finished)

            return self._evaluate(step, num_samples, advance)

    def taken_over(self, step: int) -> EvalResult | None:
        """The evaluation after `step` updates that another run of the study made of the same model, kept as this run's own; else None."""
        if not self._settings.evaluation.share_before:
            return None
        found = self._ranks.broadcast(lambda: self._shared(step))
        if found is None:
            return None
        origin, records, sampled = found
        with self._run.progress(len(records), f"evaluation before: that of {origin}") as bar:
            result = self._kept(step, records, sampled)
            bar.advance(len(records))
        return result

    def _shared(self, step: int) -> tuple[str, Records, Records] | None:
        """Name, records and records of sampled answers of such a run."""
        evaluation = self._settings.evaluation
        first, last = file_name(TEST, step), file_name(SAMPLED_TEST if evaluation.num_sampled else TEST, step)
        if (other := same_start(self._run.path, last)) is None:
            return None
        try:
            records = read_lines(other / first, links=False)
            sampled = read_lines(other / last, links=False) if evaluation.num_sampled else []
            whole = len(records) == evaluation.num_samples and len(sampled) == evaluation.num_sampled
            readable = whole and EvalResult.of(records).metrics and EvalResult.of(sampled, SAMPLED_METRICS)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # Not as a run writes them: measured again.
            return None
        return ("/".join(other.parts[-2:]), records, sampled) if readable else None

    def evaluate_curve(self, step: int) -> None:
        """Evaluate the samples of a curve, without a progress bar of its own."""
        with suppress(Stopped):  # The trainer checks for the same signal and writes a checkpoint first.
            self._evaluate(step, self._num_curve_samples, lambda num_rows: None)

    def is_missing(self, step: int) -> bool:
        """Whether an evaluation during training is due after `step` steps and not in metrics.jsonl."""
        due = self._settings.paradigm.evaluates_after(step)
        return due and step not in (self._ranks.broadcast(lambda: self._run.logged(f"eval/{METRICS[0]}")) or ())

    def recorded(self, step: int) -> EvalResult:
        """The evaluation that an earlier session of the run recorded."""
        records = self._ranks.broadcast(lambda: self._run.read_samples(TEST, step))
        assert records is not None, f"{self._run.path} has a checkpoint and no evaluation of step {step}"
        sampled = self._ranks.broadcast(lambda: self._run.read_samples(SAMPLED_TEST, step))
        return replace(EvalResult.of(records), sampled=EvalResult.of(sampled, SAMPLED_METRICS) if sampled else None)

    def _own(self, num_samples: int) -> range:
        return range(self._ranks.rank, num_samples, self._ranks.num_ranks)

    def _evaluate(self, step: int, num_samples: int, advance: Callable[[int], None]) -> EvalResult:
        began = time.perf_counter()
        own = self._records(num_samples, advance)
        shares = self._ranks.gather(self._run.requests.stop or own)  # The signal may have reached this rank alone.
        if stops := [share for share in shares if isinstance(share, int)]:
            raise Stopped(max(stops))
        records, sampled = zip(*(share for share in shares if not isinstance(share, int)), strict=True)
        result = self._kept(step, interleaved(records), interleaved(sampled))
        self.seconds += time.perf_counter() - began
        return result

    def _kept(self, step: int, records: Records, sampled: Records) -> EvalResult:
        """The result with these records, which are written into the run, and its point of the curve."""
        result = EvalResult.of(records)
        self._run.samples(TEST, step, result.records)
        if self._sampler is not None:
            of_sampled = EvalResult.of(sampled, SAMPLED_METRICS)
            self._run.samples(SAMPLED_TEST, step, of_sampled.records)
            result = replace(result, sampled=of_sampled)
        point = replace(EvalResult.of(result.records[: self._num_curve_samples]), sampled=result.sampled)
        self._run.log(step, {NUM_SAMPLES: len(point.records)})
        for name, estimate in point.metrics.items():
            low, high = estimate.ci95
            self._run.log(step, {f"eval/{name}": estimate.mean, f"eval/{name}/lo": low, f"eval/{name}/hi": high})
        return result

    def _records(self, num_samples: int, advance: Callable[[int], None]) -> tuple[Records, Records]:
        """This rank's samples, decoded and graded, and its prompts with sampled answers; none after a signal that stops the run."""

        def advance_unless_stopped(num_rows: int) -> None:
            if self._run.requests.stop:
                raise Stopped(self._run.requests.stop)
            advance(num_rows)

        with suppress(Stopped), self._refreshed() as greedy:
            advance_unless_stopped(0)
            settings = self._settings
            records = evaluate(
                greedy=greedy,
                family=settings.family,
                task=settings.task,
                settings=settings.evaluation,
                split=TEST,
                indices=self._own(num_samples),
                advance=advance_unless_stopped,
            ).records
            if self._sampler is None:
                return records, ()
            sampled = evaluate_sampled(
                sampler=self._sampler,
                family=settings.family,
                task=settings.task,
                settings=settings.evaluation,
                split=TEST,
                indices=self._own(settings.evaluation.num_sampled),
                advance=advance_unless_stopped,
            ).records
            return records, sampled
        return (), ()

    @contextmanager
    def _refreshed(self) -> Iterator[GreedyEngine]:
        """The greedy engine with the current weights."""
        greedy = self._greedy
        try:
            if greedy.streams:
                with self._engine.partitioned_weights() as (partitioned, gather):
                    greedy.refresh(partitioned, gather)
                    yield greedy
            else:
                with self._engine.gathered_weights() as whole:
                    greedy.refresh(whole)
                    if self._sampler is not None:
                        self._sampler.refresh(whole)  # Of the model itself, too; vLLM's sampler shares the engine refreshed above.
                    yield greedy
        finally:
            greedy.release()
