"""The data that rooms hand to each other: plain values, no behaviour beyond naming and hashing.

Texts are the interchange form: a percept *is* its canonical text p*, an answer is its text. So a
run directory, a user's JSONL and a task module all speak of the same thing without an import.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from enum import IntEnum, StrEnum

UNSUPERVISED = -1
"""Label of a token that no loss reads: the prompt, padding, a forced prefix."""


class Span(IntEnum):
    """The two parts of every response; they partition its supervised tokens."""

    perception = 0
    reasoning = 1

    def __str__(self) -> str:
        return self.name


class Fault(StrEnum):
    """Why a response is not exactly one well-formed perception followed by one answer."""

    not_text = "the bytes are not UTF-8"
    no_perception = "no perception is stated"
    perception_not_first = "something stands before the perception"
    many_perceptions = "more than one perception tag"
    perception_not_closed = "the perception is never closed"
    percept_not_readable = "the task cannot read the stated perception"
    no_answer = "no answer is stated"
    many_answers = "more than one answer tag"
    answer_not_closed = "the answer is never closed"
    text_after_answer = "something stands after the answer"
    truncated = "the token limit came before the end"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleKey:
    """The whole identity of a sample: everything about it is a pure function of this key."""

    task: str
    split: str
    seed: int
    index: int

    def entropy(self, *salt: str | int) -> int:
        """128 bits that depend on every field and on `salt`; stable across machines and versions."""
        text = "\x1f".join(map(str, (self.task, self.split, self.seed, self.index, *salt)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big")

    def rng(self, *salt: str | int) -> random.Random:
        """An independent generator for each purpose named by `salt`.

        >>> key = SampleKey(task="sudoku", split="test", seed=0, index=7)
        >>> key.rng("puzzle").random() == key.rng("puzzle").random() != key.rng("look").random()
        True
        """
        return random.Random(self.entropy(*salt))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """All that a model or a surrogate reward may see."""

    key: SampleKey
    image: bytes | None
    """The picture as PNG bytes; None when the percept is given as text in its place."""
    question: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """A reference response as its two spans, tags included; their concatenation is the whole text."""

    perception: str
    reasoning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One item of a task, with everything the task knows about it."""

    prompt: Prompt
    truth: str
    """The canonical percept p*."""
    solution: str
    """One correct answer (any correct one is accepted)."""
    demonstration: Demonstration
    content: str | None = None
    """Of collected data, a digest of picture and question; None where samples are made."""

    @property
    def puzzle(self) -> str:
        """Samples of one puzzle are not independent: the same percept drawn in other pictures, or the same content in several rows."""
        return self.truth if self.content is None else self.content


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What the grammar found in a completion."""

    percept: str | None
    """Text inside the perception tags; None unless exactly one stands first."""
    reasoning: str
    answer: str | None
    """Text inside the answer tags; None unless exactly one stands last."""
    faults: tuple[Fault, ...]
    boundary: int
    """Byte just after the perception's closing tag; 0 when there is no perception."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Tokens as a model produced them (never re-encoded)."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    finished: bool
    """Whether the end-of-sequence token came before the token limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A completion of a prompt, read by the grammar; it carries no percept label."""

    prompt: Prompt
    completion: Completion
    response: Response
    labels: tuple[Span, ...]
    """One span per token id of the completion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """The verdict on one rollout; None means not measurable, and is counted as such."""

    perception: bool
    """a_p: is the stated percept p*?"""
    perception_graded: float
    """Agreement of the stated percept with p*, in [0, 1] (cell accuracy, edge F1)."""
    outcome: bool
    """a: is the answer right for p*?"""
    faithful: bool | None
    """Is the answer right for the *stated* percept? None when no percept could be read."""
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean with its 95 % interval over n items."""

    mean: float
    ci95: tuple[float, float]
    n: int
