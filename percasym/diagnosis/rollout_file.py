"""Frozen rollouts on the disk: one JSON line for each prompt, with its picture, its rollouts, their grades and rewards.

A line holds the very types that rewards and graders take, so frozen rollouts can be graded again and scored by a reward that was not
there when they were sampled. The picture lies inside as base64: the file can be moved and read without the task that drew it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from percasym.runs.records import write_lines
from percasym.types import Grade, Rollout

DECIMALS = 6
"""Of recorded log-probabilities: finer than their float32 error, at half the size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """The G rollouts of one prompt with everything that was said about them."""

    truth: str
    """The canonical percept p*."""
    puzzle: str
    """Groups of one puzzle are not independent, and drawn together (`Sample.puzzle`)."""
    rollouts: tuple[Rollout, ...]
    grades: tuple[Grade, ...]
    rewards: Mapping[str, tuple[float | None, ...]]
    """Scores of each reward that was measured, by name."""
    labelled: frozenset[str]
    """Those of `rewards` that read the percept label: a yardstick, not a choice where no labels are."""
    advantages: tuple[float, ...] | None
    """What training made of them; None where nothing was trained."""
    reasoning: float | None
    """a_r of the prompt: mean outcome of its counterfactual rollouts, p* given; None where it was not measured."""

    def __post_init__(self) -> None:
        if not self.rollouts:
            raise ValueError("rollouts is empty; a group has at least one.")
        sizes = {"grades": self.grades, "advantages": self.advantages} | {
            f"rewards.{name}": scores for name, scores in self.rewards.items()
        }
        for name, values in sizes.items():
            if values is not None and len(values) != len(self.rollouts):
                raise ValueError(f"{name} must have one value for each of {len(self.rollouts)} rollouts, got {len(values)}.")
        if unknown := self.labelled - set(self.rewards):
            raise ValueError(f"labelled names {min(unknown)!r}, which is none of the rewards ({', '.join(self.rewards)}).")


def record_group(group: RolloutGroup) -> dict[str, Any]:
    """The line of a group, as `write_lines` and `Run.samples` take it."""
    prompt = group.rollouts[0].prompt
    return {
        "key": asdict(prompt.key),
        "truth": group.truth,
        "puzzle": group.puzzle,
        "question": prompt.question,
        "image": None if prompt.image is None else b64encode(prompt.image).decode("ascii"),
        "reasoning": group.reasoning,
        "labelled": sorted(group.labelled),
        "rollouts": [_record(group, sibling) for sibling in range(len(group.rollouts))],
    }


def write_rollouts(path: Path, groups: Iterable[RolloutGroup]) -> None:
    """Write one line for each group, the whole file at once."""
    write_lines(path, map(record_group, groups))


def latest_rollouts(path: Path) -> Path:
    """`path` itself when it is a file, or the last rollouts that the run at `path` has recorded.

    Raises FileNotFoundError when there is neither.
    """
    if path.is_file():
        return path
    found = sorted(path.glob("samples/rollouts_*.jsonl"))
    if not found:
        raise FileNotFoundError(
            f"{path} is no file of rollouts, and no run that recorded some (samples/rollouts_<step>.jsonl). "
            "Sample them with `percasym rollouts`, or train with paradigm=rl and paradigm.record_every above 0."
        )
    return found[-1]


def _record(group: RolloutGroup, sibling: int) -> dict[str, Any]:
    rollout, grade = group.rollouts[sibling], group.grades[sibling]
    response, completion = rollout.response, rollout.completion
    return {
        "ids": completion.ids,
        "labels": [int(label) for label in rollout.labels],
        "logprobs": None if completion.logprobs is None else [round(value, DECIMALS) for value in completion.logprobs],
        "finished": completion.finished,
        "percept": response.percept,
        "reasoning": response.reasoning,
        "answer": response.answer,
        "boundary": response.boundary,
        "faults": [fault.name for fault in response.faults],
        "grades": asdict(grade) | {"faults": [fault.name for fault in grade.faults]},
        "rewards": {name: scores[sibling] for name, scores in group.rewards.items()},
        "advantage": None if group.advantages is None else group.advantages[sibling],
    }
