"""Evaluation of what RL trains: a, a_p and a_r of answers sampled at temperature 1, several to each prompt of the test split.

Greedy answers, which `percasym.training.evaluate` grades, may stay as they are while the sampled ones improve. Each rollout has a random
generator of its own, seeded by its prompt and the evaluation's seed: all runs of a study, and all evaluations of a run, draw the same
numbers for the same prompts, so their differences are paired. The value of a prompt is the mean over its answers, and the intervals are
those of prompts, clustered by puzzle (`percasym.statistics`): answers to one prompt are not independent.

a_r is that of as many answers with p* forced as their perception span.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from percasym import metrics
from percasym.config.settings import Evaluation
from percasym.models.base import Family
from percasym.rollout.base import RolloutEngine
from percasym.tasks.base import Task, samples_of
from percasym.training.evaluate import EvalResult
from percasym.types import Grade, Rollout, Sample

SAMPLED_METRICS = ("sampled_end_to_end", "sampled_perception", "sampled_perception_graded", "sampled_reasoning", "sampled_faithful")
"""Keys of tables and summaries, in their order."""


def evaluate_sampled(
    *,
    sampler: RolloutEngine,
    family: Family,
    task: Task,
    settings: Evaluation,
    split: str = "test",
    indices: Sequence[int] | None = None,
    advance: Callable[[int], None] = lambda num_rows: None,
) -> EvalResult:
    """Grade `settings.samples_per_prompt` answers of a refreshed sampler to each chosen sample of a split.

    By default these are the first `settings.num_sampled`.

    `advance` is called with finished rows: twice as many for each prompt as it has answers.
    """
    samples = samples_of(task, split, settings.seed, range(settings.num_sampled) if indices is None else indices)
    prompts, rows = [sample.prompt for sample in samples], [family.prompt(sample.prompt) for sample in samples]

    def answers(**forced: Any) -> list[list[Rollout]]:
        size, seed = settings.samples_per_prompt, settings.seed
        return sampler.generate(prompts, group_size=size, seed=seed, prompt_rows=rows, advance=advance, **forced)

    from_picture, from_prefix = answers(), answers(forced=[sample.demonstration for sample in samples])
    records = [
        _record(
            sample,
            seen=[metrics.grade(task, sample.truth, rollout) for rollout in from_picture[i]],
            given=[metrics.grade(task, sample.truth, rollout) for rollout in from_prefix[i]],
        )
        for i, sample in enumerate(samples)
    ]
    return EvalResult.of(records, SAMPLED_METRICS)


def _record(sample: Sample, *, seen: Sequence[Grade], given: Sequence[Grade]) -> dict[str, Any]:
    """The verdicts on the answers to one prompt, and their means, as JSON."""
    verdicts: dict[str, list[float]] = {
        "end_to_end": [int(grade.outcome) for grade in seen],
        "perception": [int(grade.perception) for grade in seen],
        "perception_graded": [grade.perception_graded for grade in seen],
        "reasoning": [int(grade.outcome) for grade in given],
        "faithful": [int(grade.faithful) for grade in seen if grade.faithful is not None],
    }
    return {
        "key": asdict(sample.prompt.key),
        "truth": sample.truth,
        "puzzle": sample.puzzle,
        "verdicts": verdicts,
        "grades": {f"sampled_{name}": fmean(values) if values else None for name, values in verdicts.items()},
    }
