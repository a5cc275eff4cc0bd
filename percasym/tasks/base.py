"""What a task is: a pure function from keys to samples, and the truth-free skills of its domain.

A percept is its canonical text p*. `parse`, `draw`, `solve`, `verify` and `valid` know only what they are
handed, so a surrogate reward may use them without ever seeing the label of a sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from percasym.types import Prompt, Sample, SampleKey

SPLITS: dict[str, int] = {"base": 40, "train_sft": 30, "train_rl": 15, "test": 15}
"""Share of all puzzles in each split, in percent; the puzzle's own hash decides (our choice of shares)."""

MAX_ATTEMPTS = 10_000
"""Bound on retries for one sample: at 15 % acceptance the chance to reach it is below 1e-700."""

Puzzle = TypeVar("Puzzle")

Skill = Literal["draw", "solve", "valid", "verify"]
"""What a task may be unable to do."""
SKILLS: Mapping[Skill, str] = {
    "draw": "draw a percept",
    "solve": "solve a percept",
    "valid": "say whether a percept is possible",
    "verify": "say what follows from a percept that is not p*",
}
"""The same in words."""


class Task(Protocol):
    """One synthetic domain whose picture has a canonical text."""

    name: ClassVar[str]
    lacks: ClassVar[tuple[Skill, ...]]
    """Methods that the task refuses, with a ConfigError: those of offline rows, behind whose percepts no generator stands."""

    def sample(self, key: SampleKey) -> Sample:
        """The sample of a key: same key, same bytes."""
        ...

    def truth(self, key: SampleKey) -> str:
        """The percept of a key's sample alone: no picture, no demonstration."""
        ...

    def parse(self, text: str) -> str | None:
        """The canonical form of a stated percept; None when it is not well formed."""
        ...

    def agreement(self, truth: str, stated: str) -> float:
        """How much of p* was recovered, in [0, 1]; 1 exactly when both canonical percepts are equal."""
        ...

    def verify(self, percept: str, answer: str) -> bool:
        """Is `answer` a correct solution of `percept`? Any valid solution counts; malformed text is False."""
        ...

    def draw(self, percept: str, key: SampleKey) -> bytes:
        """The picture of a canonical percept as PNG bytes; the key decides the look only."""
        ...

    def solve(self, percept: str) -> str | None:
        """An exact solution of a canonical percept, or None when there is none."""
        ...

    def valid(self, percept: str) -> bool:
        """Could the task, as it is set, show this percept in some picture? False for malformed text."""
        ...

    def canonical(self, percept: str) -> str:
        """The form under which two puzzles count as the same for splitting."""
        ...

    def right(self, key: SampleKey, truth: str, answer: str) -> bool:
        """Is `answer` right for the sample of `key`, whose percept is `truth`?"""
        ...

    def about(self) -> Mapping[str, Any] | None:
        """Of offline rows, what a run directory keeps of the data: `path`, `rows` of each split, `skipped` rows, `examples` of why,
        a `fingerprint`. None where samples are generated."""
        ...


class SyntheticTask:
    """What is alike in all tasks whose samples are generated; such a task inherits from it."""

    __slots__ = ()
    lacks: ClassVar[tuple[Skill, ...]] = ()

    def verify(self, percept: str, answer: str) -> bool:
        """Is `answer` a correct solution of `percept`? Each task says so itself."""
        raise NotImplementedError

    def right(self, key: SampleKey, truth: str, answer: str) -> bool:
        """Any answer that solves the percept is right."""
        return self.verify(truth, answer)

    def about(self) -> None:
        """No data was read."""


def prompt_as_text(sample: Sample) -> Prompt:
    """The prompt with p* as text in place of the image: what remains to be done is reasoning only."""
    return with_text_percept(sample.prompt, sample.truth)


def with_text_percept(prompt: Prompt, percept: str) -> Prompt:
    """The prompt with any percept as text in place of the image."""
    return Prompt(key=prompt.key, image=None, question=f"{prompt.question}\n{percept}")


def split_of(canonical: str) -> str:
    """The one split a puzzle belongs to, whatever seed or index asked for it.

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
    """The first proposed puzzle that belongs to the key's split; `propose` receives the attempt number.

    Raises ValueError when the universe of puzzles has none in this split.
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
