"""Statements of a puzzle or an answer inside a longer text, and the notation that finds them.

The released sets write one thing in several ways: an unsolved grid as JSON with 0 for an empty cell in `ground_truth`, as lines with "-"
in a fenced block of the response. A notation finds each of them and has one canonical text for all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

OPENING_FENCE = re.compile(r"```[A-Za-z]*[ \t]*\n?\s*\Z")
CLOSING_FENCE = re.compile(r"\s*```")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A statement and its place in a text, surrounding code fence included."""

    text: str
    """Canonical."""
    start: int
    end: int


class Notation(Protocol):
    """How a domain writes percepts and answers, and what it knows about them."""

    def percepts(self, text: str) -> Sequence[Found]:
        """Unsolved puzzles that a text states, in their order."""
        ...

    def answers(self, text: str, percept: str) -> Sequence[Found]:
        """Complete answers to `percept` that a text states, right or wrong, in their order."""
        ...

    def parse(self, text: str) -> str | None:
        """The canonical percept of a text that states one puzzle and nothing else; None for any other text."""
        ...

    def agreement(self, truth: str, stated: str) -> float:
        """Graded match of two canonical percepts, in [0, 1]."""
        ...

    def verify(self, percept: str, answer: str) -> bool:
        """Whether `answer`, in any notation and with nothing beside it, solves `percept`."""
        ...

    def solve(self, percept: str) -> str | None:
        """A solution of a canonical percept in canonical text; None when it has none."""
        ...

    def valid(self, percept: str) -> bool:
        """Whether a row can have this percept."""
        ...

    def canonical(self, percept: str) -> str:
        """A representative of all percepts that count as the same puzzle."""
        ...


def found(canonical: str, whole: str, start: int, end: int) -> Found:
    """A statement at `whole[start:end]`, extended over a code fence around it.

    >>> found("x", "so ```\\nx\\n``` then", 7, 8)
    Found(text='x', start=3, end=12)
    """
    opening, closing = OPENING_FENCE.search(whole, 0, start), CLOSING_FENCE.match(whole, end)
    if opening and closing:
        start, end = opening.start(), closing.end()
    return Found(text=canonical, start=start, end=end)


def alone(statements: Sequence[Found], text: str) -> str | None:
    """The canonical text of the only statement in `text`; None where there is another one, or anything else."""
    if len(statements) != 1:
        return None
    (only,) = statements
    return None if (text[: only.start] + text[only.end :]).strip() else only.text
