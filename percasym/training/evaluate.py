"""Measuring seeing and thinking apart: a, a_p and a_r on the same samples with the same decoding.

Each sample is answered three times: from its picture (end-to-end a and perception a_p), from its
picture with p* forced as the perception span (counterfactual reasoning a_r), and from p* as text in
place of the picture (the same, where no picture can distract). Where the answer to the picture begins with
p* itself, the second answer is the rest of the first and is not decoded again.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from transformers import PreTrainedModel

from percasym import metrics
from percasym.config.settings import Evaluation
from percasym.models.base import Family
from percasym.rollout.base import ForcedPrefix
from percasym.rollout.native import branched
from percasym.tasks.base import Task, prompt_as_text
from percasym.types import Completion, Estimate, Prompt, Rollout, Sample, SampleKey

METRICS = ("end_to_end", "perception", "perception_graded", "reasoning", "reasoning_text", "faithful")
"""Keys of every table and summary, in the order in which they are shown."""

NUM_PICTURES = 64
"""First samples whose picture is kept in their record, about 8 kB each: a reader looks at few, and a key gives back the others."""

Verdicts = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """The three metrics of one model on one set of samples."""

    verdicts: Verdicts
    """One value a sample for each metric: what a paired gain needs."""
    puzzles: Sequence[str]
    """The puzzle of each sample: samples of one differ in their pictures only."""
    records: Sequence[dict[str, Any]]
    """One JSON object a sample: token ids, texts, labels, grades; enough to grade again offline."""

    @classmethod
    def of(cls, records: Sequence[dict[str, Any]]) -> EvalResult:
        """The result that these records are the whole of."""
        verdicts = {name: [record["grades"][name] for record in records] for name in METRICS}
        return cls(verdicts=verdicts, puzzles=[record.get("puzzle", record["truth"]) for record in records], records=records)

    @property
    def metrics(self) -> dict[str, Estimate]:
        """Mean and 95 % interval of each metric."""
        estimate = {"perception_graded": metrics.average}
        return {name: estimate.get(name, metrics.proportion)(values, self.puzzles) for name, values in self.verdicts.items()}

    def gain_over(self, before: EvalResult) -> dict[str, Estimate]:
        """Paired differences to an earlier result on the same samples."""
        return {name: metrics.gain(before.verdicts[name], values, self.puzzles) for name, values in self.verdicts.items()}


def evaluate(
    *,
    model: PreTrainedModel,
    family: Family,
    task: Task,
    settings: Evaluation,
    split: str = "test",
    indices: Sequence[int] | None = None,
    advance: Callable[[int], None] = lambda num_rows: None,
) -> EvalResult:
    """Grade some samples of a split (default: as many as the settings ask for); `advance` hears of finished rows, three a sample."""
    chosen = range(settings.num_samples) if indices is None else indices
    keys = [SampleKey(task=task.name, split=split, seed=settings.seed, index=index) for index in chosen]
    samples = [task.sample(key) for key in keys]
    was_training = model.training
    model.eval()

    def answers(prompts: Sequence[Prompt], forced: Sequence[Sequence[int]]) -> list[Completion]:
        limit, together, rows = settings.max_new_tokens, settings.batch_size, [family.prompt(prompt) for prompt in prompts]
        beginnings = [[ids] for ids in forced]
        done = branched(model, family, rows, beginnings, max_new_tokens=limit, batch_size=together, advance=advance)
        return [completion for (completion,) in done]

    codec, prompts = family.codec(), [sample.prompt for sample in samples]
    openings = ForcedPrefix.all(codec, prompts, stated=[sample.truth for sample in samples])
    nothing: list[Sequence[int]] = [()] * len(samples)
    pictured = answers(prompts, nothing)
    reasoned = {i: rest for i, opening in enumerate(openings) if (rest := _after(pictured[i], opening.forced))}
    advance(len(reasoned))
    others = [i for i in range(len(samples)) if i not in reasoned]
    reasoned |= zip(others, answers([prompts[i] for i in others], [openings[i].forced for i in others]), strict=True)
    told = answers([prompt_as_text(sample) for sample in samples], nothing)
    model.train(was_training)

    records = [
        _record(
            task,
            sample,
            seen=codec.rollout(sample.prompt, pictured[i]),
            given=openings[i].rollout(codec, reasoned[i]),
            told=codec.rollout(prompt_as_text(sample), told[i]),
        )
        for i, sample in enumerate(samples)
    ]
    return EvalResult.of(records)


def _after(free: Completion, forced: Sequence[int]) -> Completion | None:
    """What greedy decoding would answer after the tokens `forced`, where the free answer begins with them; None where it does not.

    An answer that met the token limit is not used: after a forced beginning it could go on for as many tokens more.
    """
    if not free.finished or free.ids[: len(forced)] != tuple(forced):
        return None
    logprobs = None if free.logprobs is None else free.logprobs[len(forced) :]
    return replace(free, ids=free.ids[len(forced) :], logprobs=logprobs)


def _record(task: Task, sample: Sample, *, seen: Rollout, given: Rollout, told: Rollout) -> dict[str, Any]:
    """One sample with its three responses and their grades, as JSON."""
    free, forced, textual = (metrics.grade(task, sample.truth, rollout) for rollout in (seen, given, told))
    picture = sample.prompt.image if sample.prompt.key.index < NUM_PICTURES else None
    return {
        "key": asdict(sample.prompt.key),
        "question": sample.prompt.question,
        "truth": sample.truth,
        "puzzle": sample.puzzle,
        "solution": sample.solution,
        "image": None if picture is None else b64encode(picture).decode("ascii"),
        "responses": {name: _written(rollout) for name, rollout in (("image", seen), ("prefix", given), ("text", told))},
        "faults": {
            name: [fault.name for fault in grade.faults] for name, grade in (("image", free), ("prefix", forced), ("text", textual))
        },
        "grades": {
            "end_to_end": free.outcome,
            "perception": free.perception,
            "perception_graded": free.perception_graded,
            "reasoning": forced.outcome,
            "reasoning_text": textual.outcome,
            "faithful": free.faithful,
        },
    }


def _written(rollout: Rollout) -> dict[str, Any]:
    """A completion as its exact tokens, its labels, and the texts the grammar found."""
    response, completion = rollout.response, rollout.completion
    return {
        "ids": list(completion.ids),
        "labels": [int(label) for label in rollout.labels],
        "percept": response.percept,
        "reasoning": response.reasoning,
        "answer": response.answer,
        "finished": completion.finished,
    }
