"""The data types shared by all packages: plain values without behaviour beyond naming and hashing.

Percepts and answers are exchanged as text: a percept *is* its canonical text p*. Run directories, a user's JSON lines and task modules
therefore share one format without importing each other.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from enum import IntEnum, StrEnum

UNSUPERVISED = -1
"""Label of a token without a loss: the prompt, padding, a forced prefix."""


class Span(IntEnum):
    """The two spans of a response; they partition its supervised tokens."""

    perception = 0
    reasoning = 1

    def __str__(self) -> str:
        return self.name


class Fault(StrEnum):
    """Reasons why a response is not exactly one well-formed perception followed by one answer."""

    not_text = "the bytes are not UTF-8"
    no_perception = "no perception is stated"
    perception_not_first = "something stands before the perception"
    many_perceptions = "more than one perception tag"
    perception_not_closed = "the perception is never closed"
    percept_not_readable = "the task cannot read the stated perception"
    no_answer = "no answer is stated"
    many_answers = "more than one answer tag"
    answer_in_perception = "the answer stands inside the perception"
    answer_not_closed = "the answer is never closed"
    text_after_answer = "something stands after the answer"
    truncated = "the token limit came before the end"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleKey:
    """The identity of a sample, which is a pure function of this key."""

    task: str
    split: str
    seed: int
    index: int

    def entropy(self, *salt: str | int) -> int:
        """128 bits that depend on every field and on `salt`; stable across machines and versions."""
        text = "\x1f".join(map(str, (self.task, self.split, self.seed, self.index, *salt)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")

    def rng(self, *salt: str | int) -> random.Random:
        """An independent random generator for the purpose named by `salt`.

        >>> key = SampleKey(task="sudoku", split="test", seed=0, index=7)
        >>> key.rng("puzzle").random() == key.rng("puzzle").random() != key.rng("look").random()
        True
        """
        return random.Random(self.entropy(*salt))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The inputs available to a model or a surrogate reward."""

    key: SampleKey
    image: bytes | None
    """The picture as PNG bytes; None when the percept is given as text in its place."""
    question: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """A reference response as its two spans, tags included; the whole text is their concatenation."""

    perception: str
    reasoning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One item of a task, with its labels."""

    prompt: Prompt
    truth: str
    """The canonical percept p*."""
    solution: str
    """One correct answer (any correct one is accepted)."""
    demonstration: Demonstration
    content: str | None = None
    """Digest of picture and question for collected data; None for generated samples."""
    text_question: str | None = None
    """The question with the percept in the words of its data set; None where it is put after the question."""

    @property
    def puzzle(self) -> str:
        """Cluster id for intervals: samples of one percept in different pictures, or rows of the same content, are not independent."""
        return self.truth if self.content is None else self.content


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A completion as parsed by the grammar."""

    percept: str | None
    """Text inside the perception tags; None unless there is exactly one pair, at the start."""
    reasoning: str
    answer: str | None
    """Text inside the answer tags; None unless there is exactly one pair, at the end."""
    faults: tuple[Fault, ...]
    boundary: int
    """Byte offset just after the closing perception tag; 0 without a perception."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Generated tokens, never re-tokenised."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    finished: bool
    """Whether the end-of-sequence token was generated before the token limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A completion of a prompt with its parsed response; it contains no label of the percept."""

    prompt: Prompt
    completion: Completion
    response: Response
    labels: tuple[Span, ...]
    """One span per token id of the completion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """The metrics of one rollout; None means not measurable, and is excluded from means."""

    perception: bool
    """a_p: whether the stated percept is p*."""
    perception_graded: float
    """Agreement of the stated percept with p*, in [0, 1] (cell accuracy, edge F1)."""
    outcome: bool
    """a: whether the answer is correct for p*."""
    faithful: bool | None
    """Whether the answer is correct for the *stated* percept; None if no percept could be parsed."""
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over n items with its 95 % interval."""

    mean: float
    ci95: tuple[float, float]
    n: int
