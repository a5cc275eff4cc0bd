"""Evaluation of perception and reasoning apart: a, a_p and a_r on the same samples with the same greedy decoding.

Each sample is answered three times: from its picture (end-to-end a and perception a_p), from its picture with p* forced as the perception
span (counterfactual reasoning a_r), and from p* as text in place of the picture (a_r without a picture, and whether p* is copied). Where
the first answer begins with p* itself, the second answer is the rest of the first and is not decoded again.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from percasym import metrics, statistics
from percasym.config.settings import Evaluation
from percasym.models.base import Family
from percasym.rollout.base import ForcedPrefix, GreedyEngine
from percasym.spans.codec import Codec
from percasym.tasks.base import Task, prompt_as_text, samples_of
from percasym.types import Completion, Estimate, Fault, Prompt, Rollout, Sample

METRICS = ("end_to_end", "perception", "perception_graded", "reasoning", "reasoning_text", "perception_text", "faithful")
"""Keys of tables and summaries, in their order."""

NUM_PICTURES = 64
"""Samples whose record holds the picture, the first ones: about 8 kB each. The key of a sample is enough to draw its picture again."""

Verdicts = Mapping[str, Sequence[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalResult:
    """The three metrics of one model on one set of samples."""

    verdicts: Verdicts
    """For each metric one value per sample, as a paired gain needs them."""
    puzzles: Sequence[str]
    """The puzzle of each sample; samples of one puzzle differ in their pictures only."""
    records: Sequence[dict[str, Any]]
    """One JSON object per sample: token ids, texts, labels, grades; enough to grade again offline."""
    sampled: EvalResult | None = None
    """That of sampled answers at the same time (`percasym.training.sampled`), where `evaluation.num_sampled` asks for them."""

    @classmethod
    def of(cls, records: Sequence[dict[str, Any]], metrics: Sequence[str] = METRICS) -> EvalResult:
        """The result of an evaluation with these records."""
        verdicts = {name: [record["grades"].get(name) for record in records] for name in metrics}  # Older records lack perception_text.
        return cls(verdicts=verdicts, puzzles=[record.get("puzzle", record["truth"]) for record in records], records=records)

    @property
    def metrics(self) -> dict[str, Estimate]:
        """Mean and 95 % interval of each metric, those of sampled answers last."""
        own = {name: statistics.proportion(values, self.puzzles) for name, values in self.verdicts.items()}
        return own | (self.sampled.metrics if self.sampled else {})

    def gain_over(self, before: EvalResult) -> dict[str, Estimate]:
        """Paired differences from an earlier result on the same samples, and the contributions to that of a."""
        own = {name: statistics.gain(before.verdicts[name], values, self.puzzles) for name, values in self.verdicts.items()}
        if all(name in side.verdicts for side in (before, self) for name in metrics.HEADLINE):
            old, new = (list(zip(*(side.verdicts[name] for name in metrics.HEADLINE), strict=True)) for side in (before, self))
            own |= metrics.contributed(old, new, self.puzzles)
        return own | (self.sampled.gain_over(before.sampled) if self.sampled and before.sampled else {})


def evaluate(
    *,
    greedy: GreedyEngine,
    family: Family,
    task: Task,
    settings: Evaluation,
    split: str = "test",
    indices: Sequence[int] | None = None,
    advance: Callable[[int], None] = lambda num_rows: None,
) -> EvalResult:
    """Grade the greedy answers of a refreshed engine to samples of a split, by default the first `settings.num_samples`.

    `advance` is called with finished rows, three per sample.
    """
    samples = samples_of(task, split, settings.seed, range(settings.num_samples) if indices is None else indices)

    def answers(prompts: Sequence[Prompt], prefixes: Sequence[Sequence[int]]) -> list[Completion]:
        limits = {"max_new_tokens": settings.max_new_tokens, "batch_size": settings.batch_size}
        return greedy.answer(prompts, prefixes, **limits, advance=advance)

    codec, prompts = family.codec(), [sample.prompt for sample in samples]
    prefixes = ForcedPrefix.all(codec, prompts, [sample.demonstration for sample in samples])
    no_prefix: list[Sequence[int]] = [()] * len(samples)
    from_picture = answers(prompts, no_prefix)
    from_prefix = {i: rest for i, prefix in enumerate(prefixes) if (rest := _rest(from_picture[i], prefix.forced))}
    advance(len(from_prefix))
    others = [i for i in range(len(samples)) if i not in from_prefix]
    from_prefix |= zip(others, answers([prompts[i] for i in others], [prefixes[i].forced for i in others]), strict=True)
    from_text = answers([prompt_as_text(sample) for sample in samples], no_prefix)

    records = [
        _record(
            task,
            codec,
            sample,
            picture=codec.rollout(sample.prompt, from_picture[i]),
            prefix=prefixes[i].rollout(codec, from_prefix[i]),
            text=codec.rollout(prompt_as_text(sample), from_text[i]),
        )
        for i, sample in enumerate(samples)
    ]
    return EvalResult.of(records)


def _rest(answer: Completion, prefix: Sequence[int]) -> Completion | None:
    """The greedy continuation of the tokens `prefix`, taken from a greedy answer that begins with them; None where it does not.

    An answer cut by the token limit is not used: with a forced prefix it could continue for as many tokens as the prefix has.
    """
    if not answer.finished or answer.ids[: len(prefix)] != tuple(prefix):
        return None
    logprobs = None if answer.logprobs is None else answer.logprobs[len(prefix) :]
    return replace(answer, ids=answer.ids[len(prefix) :], logprobs=logprobs)


def _record(task: Task, codec: Codec, sample: Sample, *, picture: Rollout, prefix: Rollout, text: Rollout) -> dict[str, Any]:
    """One sample with its three responses and their grades, as JSON."""
    rollouts = {"image": picture, "prefix": prefix, "text": text}
    grades = {name: metrics.grade(task, sample.truth, rollout) for name, rollout in rollouts.items()}
    image = sample.prompt.image if sample.prompt.key.index < NUM_PICTURES else None
    return {
        "key": asdict(sample.prompt.key),
        "question": sample.prompt.question,
        "truth": sample.truth,
        "puzzle": sample.puzzle,
        "solution": sample.solution,
        "image": None if image is None else b64encode(image).decode("ascii"),
        "responses": {name: _response(rollout, codec, grades[name].faults) for name, rollout in rollouts.items()},
        "faults": {name: [fault.name for fault in grade.faults] for name, grade in grades.items()},
        "grades": {
            "end_to_end": grades["image"].outcome,
            "perception": grades["image"].perception,
            "perception_graded": grades["image"].perception_graded,
            "reasoning": grades["prefix"].outcome,
            "reasoning_text": grades["text"].outcome,
            "perception_text": grades["text"].perception,
            "faithful": grades["image"].faithful,
        },
    }


def _response(rollout: Rollout, codec: Codec, faults: Sequence[Fault]) -> dict[str, Any]:
    """A completion as its exact tokens, their labels, and the texts that the grammar found; with a fault, its whole text too."""
    response, completion = rollout.response, rollout.completion
    whole = {"text": codec.text(completion.ids)} if faults else {}  # Without a fault the parts are the text.
    return {
        "ids": list(completion.ids),
        "labels": [int(label) for label in rollout.labels],
        "percept": response.percept,
        "reasoning": response.reasoning,
        "answer": response.answer,
        "finished": completion.finished,
        **whole,
    }
