"""Recorded rollouts on disk: one JSON line for each prompt, with its picture, its rollouts, their grades and rewards.

A line holds the types that graders and rewards take, so recorded rollouts can be graded again and scored by a reward that did not exist
when they were sampled. The picture is included as base64, so the file is complete without the task that drew it. Reading is strict:
anything that is not such a record is refused with its file, line and key.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from percasym.config.schema import read
from percasym.runs.records import ROLLOUTS, list_samples, read_lines, write_lines
from percasym.types import Completion, Fault, Grade, Prompt, Response, Rollout, SampleKey, Span

DECIMALS = 6
"""Decimals of recorded log-probabilities: below their float32 error, at half the size."""

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutGroup:
    """The G rollouts of one prompt with their grades, rewards and advantages."""

    truth: str
    """The canonical percept p*."""
    puzzle: str
    """Groups of one puzzle are not independent, and are resampled together (`Sample.puzzle`)."""
    rollouts: tuple[Rollout, ...]
    grades: tuple[Grade, ...]
    rewards: Mapping[str, tuple[float | None, ...]]
    """Scores of each measured reward, by name."""
    labelled: frozenset[str]
    """Those of `rewards` that read the percept label: a reference, not available without labels."""
    advantages: tuple[float, ...] | None
    """The advantages in training; None where nothing was trained."""
    reasoning: float | None
    """a_r of the prompt: mean outcome of its counterfactual rollouts, with p* given; None where it was not measured."""

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
    """The record of a group, for `write_lines` and `Run.samples`."""
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
    """Write one line for each group; the file appears complete or not at all."""
    write_lines(path, map(record_group, groups))


def latest_rollouts(path: Path) -> Path:
    """`path` itself if it is a file, or the last rollouts that the run at `path` recorded.

    Raises FileNotFoundError when there is neither.
    """
    if path.is_file():
        return path
    found = [] if (path / "samples").is_symlink() else list_samples(path, ROLLOUTS)  # The diagnosis is written beside it.
    if not found:
        raise FileNotFoundError(
            f"{path} is no file of rollouts, and no run that recorded some (samples/rollouts_<step>.jsonl). "
            "Sample them with `percasym rollouts`, or train with paradigm=rl and paradigm.record_every above 0."
        )
    return found[-1].path


def read_rollouts(path: Path) -> list[RolloutGroup]:
    """The groups of a file that `write_rollouts` or a run wrote.

    Raises ValueError, with file and line, for an invalid record, rewards that differ from those of the first line, or an empty file.
    """
    groups: list[RolloutGroup] = []
    for number, record in enumerate(read_lines(path), start=1):
        try:
            groups.append(_group(record))
        except ValueError as error:
            raise ValueError(f"Line {number} of {path} is no group of rollouts: {error}") from None
        if (names := sorted(groups[-1].rewards)) != (first := sorted(groups[0].rewards)):
            raise ValueError(f"Line {number} of {path} has the rewards {names}, and line 1 has {first}: one file holds one measurement.")
    if not groups:
        raise ValueError(f"{path} holds no rollouts.")
    return groups


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


def _group(record: Any) -> RolloutGroup:
    key = read(_value(record, "key", ""), SampleKey, "key")
    prompt = Prompt(key=key, image=_picture(record), question=_take(record, "question", str))
    truth, rows = _take(record, "truth", str), _value(record, "rollouts", "")
    if not isinstance(rows, list):
        raise ValueError(f"rollouts must be a list, got {rows!r:.80}.")
    places = [f"rollouts[{sibling}]." for sibling in range(len(rows))]
    advantages = [_take(row, "advantage", float | None, where) for row, where in zip(rows, places, strict=True)]
    scores = [_scores(row, where) for row, where in zip(rows, places, strict=True)]
    for where, own in zip(places, scores, strict=True):
        if own.keys() != scores[0].keys():
            raise ValueError(f"{where}rewards names {sorted(own)}, and rollouts[0].rewards {sorted(scores[0])}.")
    if None in advantages and any(advantage is not None for advantage in advantages):
        raise ValueError(f"rollouts[{advantages.index(None)}].advantage is null, and others are not.")
    return RolloutGroup(
        truth=truth,
        puzzle=_take(record, "puzzle", str) if "puzzle" in record else f"{prompt.question}\n{truth}",  # Of earlier versions.
        rollouts=tuple(_rollout(prompt, row, where) for row, where in zip(rows, places, strict=True)),
        grades=tuple(_grade(_value(row, "grades", where), f"{where}grades.") for row, where in zip(rows, places, strict=True)),
        rewards={name: tuple(own[name] for own in scores) for name in (scores[0] if scores else ())},
        labelled=frozenset(_take(record, "labelled", tuple[str, ...])),
        advantages=None if None in advantages else tuple(advantages),
        reasoning=_take(record, "reasoning", float | None),
    )


def _rollout(prompt: Prompt, row: Record, where: str) -> Rollout:
    ids, labels = (_numbers(row, name, int, where) for name in ("ids", "labels"))
    logprobs = None if _value(row, "logprobs", where) is None else _numbers(row, "logprobs", float, where)
    for name, values in (("labels", labels), ("logprobs", logprobs)):
        if values is not None and len(values) != len(ids):
            raise ValueError(f"{where}{name} must have one value for each of {len(ids)} ids, got {len(values)}.")
    if unknown := set(labels) - set(Span):
        raise ValueError(f"{where}labels must be 0 (perception) or 1 (reasoning), got {min(unknown)}.")
    return Rollout(
        prompt=prompt,
        completion=Completion(ids=ids, logprobs=logprobs, finished=_take(row, "finished", bool, where)),
        response=Response(
            percept=_take(row, "percept", str | None, where),
            reasoning=_take(row, "reasoning", str, where),
            answer=_take(row, "answer", str | None, where),
            faults=_faults(row, where),
            boundary=_take(row, "boundary", int, where),
        ),
        labels=tuple(map(Span, labels)),
    )


def _grade(grades: Any, where: str) -> Grade:
    return Grade(
        perception=_take(grades, "perception", bool, where),
        perception_graded=_take(grades, "perception_graded", float, where),
        outcome=_take(grades, "outcome", bool, where),
        faithful=_take(grades, "faithful", bool | None, where),
        faults=_faults(grades, where),
    )


def _scores(row: Record, where: str) -> dict[str, float | None]:
    rewards = _value(row, "rewards", where)
    if not isinstance(rewards, Mapping):
        raise ValueError(f"{where}rewards must map names to scores, got {rewards!r:.80}.")
    return {name: read(score, float | None, f"{where}rewards.{name}") for name, score in rewards.items()}


def _faults(row: Record, where: str) -> tuple[Fault, ...]:
    names = _take(row, "faults", tuple[str, ...], where)
    if unknown := set(names) - set(Fault.__members__):
        raise ValueError(f"{where}faults has no fault {min(unknown)!r}; the faults are {', '.join(Fault.__members__)}.")
    return tuple(Fault[name] for name in names)


def _picture(record: Record) -> bytes | None:
    text = _take(record, "image", str | None)
    try:
        return None if text is None else b64decode(text, validate=True)
    except NotBase64:
        raise ValueError(f"image must be a PNG in base64 or null, got {text!r:.40}.") from None


def _numbers(row: Record, name: str, kind: type, where: str) -> tuple[Any, ...]:
    value = _value(row, name, where)
    if isinstance(value, list) and all(type(item) is kind for item in value):  # A file has a million tokens, and `read` is slow.
        return tuple(value)
    return read(value, tuple[kind, ...], where + name)  # type: ignore[valid-type]


def _take(record: Record, name: str, hint: Any, where: str = "") -> Any:
    return read(_value(record, name, where), hint, where + name)


def _value(record: Any, name: str, where: str) -> Any:
    if not isinstance(record, Mapping):
        raise ValueError(f"{where.removesuffix('.') or 'the record'} must be a group of values, got {record!r:.80}.")
    if name not in record:
        raise ValueError(f"{where}{name} is missing.")
    return record[name]
