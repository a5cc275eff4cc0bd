"""The interface of a task: sample keys to samples, and operations on percepts that need no label.

A percept is its canonical text p*. `parse`, `draw`, `solve`, `verify` and `valid` depend on their arguments only, so a surrogate reward
can use them without access to a sample's label.

A new generated task is one file and one yaml. The file defines a frozen dataclass that inherits from `SyntheticTask`, has the methods of
`Task`, and whose fields are the options `task.*`; conf/task/<name>.yaml holds its `_target_` (sizes that depend on the scale go to
conf/scale/*/<name>.yaml). One line in `CASES` of tests/laws/test_tasks.py, with an oracle of correct answers, tests it.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, Protocol, Self, TypeVar

from percasym.config.escaping import counted
from percasym.types import Prompt, Sample, SampleKey

SPLITS: dict[str, int] = {"base": 40, "train_sft": 30, "train_rl": 15, "test": 15}
"""Share of all puzzles in each split, in percent (our choice); the hash of a puzzle decides its split."""

MAX_ATTEMPTS = 10_000
"""Bound on retries for one sample: at 15 % acceptance the chance to reach it is below 1e-700."""

Puzzle = TypeVar("Puzzle")

RowCheck = Callable[[Mapping[str, str], tuple[int, int]], None]
"""A check of collected rows against a model: the texts of a row by name and the (width, height) of its picture. Raises ValueError."""

Skill = Literal["draw", "solve", "valid", "verify"]
"""Methods that a task may not support."""
SKILLS: Mapping[Skill, str] = {
    "draw": "draw a percept",
    "solve": "solve a percept",
    "valid": "say whether a percept is possible",
    "verify": "say what follows from a percept that is not p*",
}
"""What each of them does, for error messages."""


class Task(Protocol):
    """A domain whose picture has a canonical text."""

    name: ClassVar[str]
    lacks: ClassVar[tuple[Skill, ...]]
    """Methods that raise ConfigError: collected rows have no generator, so their percepts cannot be drawn or solved."""

    def sample(self, key: SampleKey) -> Sample:
        """The sample of a key; a pure function, to the last byte."""
        ...

    def truth(self, key: SampleKey) -> str:
        """The percept of a key's sample, without its picture and demonstration."""
        ...

    def parse(self, text: str) -> str | None:
        """The canonical form of a stated percept; None if it is malformed."""
        ...

    def agreement(self, truth: str, stated: str) -> float:
        """Graded match of a stated percept with p*, in [0, 1]; 1 exactly when both canonical percepts are equal."""
        ...

    def verify(self, percept: str, answer: str) -> bool:
        """Whether `answer` solves `percept`. Any valid solution counts; malformed text is False."""
        ...

    def draw(self, percept: str, key: SampleKey) -> bytes:
        """The picture of a canonical percept as PNG bytes; the key decides its appearance only."""
        ...

    def solve(self, percept: str) -> str | None:
        """An exact solution of a canonical percept, or None when it has none."""
        ...

    def valid(self, percept: str) -> bool:
        """Whether a sample of the task, with its current options, can have this percept. False for malformed text."""
        ...

    def canonical(self, percept: str) -> str:
        """A representative of all percepts that count as the same puzzle; it decides the split."""
        ...

    def right(self, key: SampleKey, truth: str, answer: str) -> bool:
        """Whether `answer` is correct for the question of `key` about `truth`: p*, or a misread percept where the task can `verify`."""
        ...

    def about(self) -> Mapping[str, Any] | None:
        """What a run directory records of collected data: `path`, `rows` of each split, number of `skipped` rows, `examples` of the
        reasons, `notes` on what was done to rows, and a `fingerprint`. None for generated samples."""
        ...

    def checked(self, check: RowCheck) -> Task:
        """The task with every collected row checked by `check` when rows are read; itself for generated samples."""
        ...


class SyntheticTask(ABC):
    """Base of tasks whose samples are generated: nothing is unsupported, and any answer that solves p* is correct."""

    __slots__ = ()
    lacks: ClassVar[tuple[Skill, ...]] = ()

    @abstractmethod
    def verify(self, percept: str, answer: str) -> bool:
        """See `Task.verify`."""

    def right(self, key: SampleKey, truth: str, answer: str) -> bool:
        """Whether `answer` solves `truth`."""
        return self.verify(truth, answer)

    def about(self) -> None:  # noqa: B027
        """None, because no data is read."""

    def checked(self, check: RowCheck) -> Self:
        """Itself: generated samples are made to fit."""
        return self


def data_summary(about: Mapping[str, Any]) -> str:
    """The result of `Task.about` in one line, and a line for each note.

    >>> data_summary({"path": "a.jsonl", "rows": {"train_sft": 7, "test": 2}, "skipped": 1, "examples": ["a.jsonl, line 3: not JSON."]})
    'a.jsonl: 7 train_sft, 2 test rows, 1 skipped (a.jsonl, line 3: not JSON.)'
    """
    rows = ", ".join(f"{number} {split}" for split, number in about["rows"].items())
    skipped = f", {about['skipped']} skipped ({'; '.join(about['examples'])})" if about["skipped"] else ""
    noun = "row" if sum(about["rows"].values()) == 1 else "rows"
    return "\n".join([f"{about['path']}: {rows} {noun}{skipped}", *about.get("notes", ())])


def require_rows(task: Task, split: str, num: int, option: str) -> None:
    """Raise ValueError where `num` samples of a split would repeat rows of collected data; `option` is what asked for them."""
    about = task.about()
    if about is not None and num > (rows := about["rows"].get(split, 0)):
        if not rows:
            raise ValueError(f"{about['path']} has no rows of split {split}, and {option}={num} asks for some. {_held(about)}")
        held = counted(rows, "row")
        raise ValueError(f"{about['path']} has {held} of split {split}, and {option}={num} would repeat some. Ask for at most {rows}.")


def _held(about: Mapping[str, Any]) -> str:
    return f"It has {', '.join(f'{number} {split}' for split, number in about['rows'].items())}."


def samples_of(task: Task, split: str, seed: int, indices: Iterable[int]) -> list[Sample]:
    """The samples of a split with these indices, in their order."""
    return [task.sample(SampleKey(task=task.name, split=split, seed=seed, index=index)) for index in indices]


def prompt_as_text(sample: Sample) -> Prompt:
    """The prompt with p* as text in place of the image, which leaves reasoning only."""
    if sample.text_question is not None:
        return Prompt(key=sample.prompt.key, image=None, question=sample.text_question)
    return with_text_percept(sample.prompt, sample.truth)


def with_text_percept(prompt: Prompt, percept: str) -> Prompt:
    """The prompt with any percept as text in place of the image."""
    return Prompt(key=prompt.key, image=None, question=f"{prompt.question}\n{percept}")


def split_of(canonical: str) -> str:
    """The split of a puzzle, independent of seed and index.

    >>> split_of("5: AB AC BD CE DE") in SPLITS
    True
    """
    point = int.from_bytes(hashlib.blake2b(canonical.encode(), digest_size=8).digest(), "big") % 100
    for split, share in SPLITS.items():
        point -= share
        if point < 0:
            return split
    raise AssertionError(f"the shares of {SPLITS} do not add up to 100")


def draw_until_in_split(key: SampleKey, propose: Callable[[int], Puzzle], canonical: Callable[[Puzzle], str]) -> Puzzle:
    """The first proposed puzzle in the key's split; `propose` receives the attempt number.

    Raises ValueError for an unknown split, and when no puzzle is found in `MAX_ATTEMPTS`.
    """
    if key.split not in SPLITS:
        raise ValueError(f"No split named {key.split!r}; the splits are {', '.join(SPLITS)}.")
    for attempt in range(MAX_ATTEMPTS):
        puzzle = propose(attempt)
        if split_of(canonical(puzzle)) == key.split:
            return puzzle
    raise ValueError(
        f"No {key.task} puzzle of these settings falls into split {key.split!r} ({MAX_ATTEMPTS} tries). Widen the task's ranges."
    )
