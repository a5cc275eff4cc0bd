"""Regular expressions of the user (`task.boundary`, `task.ground_truth`), with a limit of time for each row.

Unlike `re`, the package regex can be interrupted: an expression such as (a+)+b tries 2^n ways to match n letters, and a file of a study
chooses both the expression and the rows.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import regex

SECONDS = 1.0
"""For one row (our choice): an expression that does not backtrack needs microseconds."""
MAX_CHARACTERS = 4096
"""Of an expression; compiling a longer one takes seconds."""

MAX_REPEATS = 10_000
"""Product of the counts {m,n} of an expression: regex compiles (a{1000}){1000} to a million nodes."""
_COUNT = re.compile(r"\{(\d{0,9}),?(\d{0,9})[\d,]*\}")


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression of one option."""

    option: str
    """Its name, for messages."""
    compiled: regex.Pattern[str]
    seconds: float = SECONDS
    """Longest search."""

    @property
    def pattern(self) -> str:
        """Its text."""
        return self.compiled.pattern

    @property
    def groupindex(self) -> Mapping[str, int]:
        """Its named groups."""
        return self.compiled.groupindex

    def search(self, text: str) -> regex.Match[str] | None:
        """The first match in `text`. Raises ValueError when the search takes too long."""
        try:
            return self.compiled.search(text, timeout=self.seconds)
        except TimeoutError:
            what = f"task.{self.option}={self.pattern[:60]!r} has not matched after {self.seconds:g} seconds"
            raise ValueError(f"{what}. Write it without nested repetition.") from None


def compiled(option: str, pattern: str | None) -> Expression | None:
    """The expression of an option of the task; None where there is none.

    >>> found = compiled("boundary", " ?THINK").search("Two red. THINK")
    >>> found.span()
    (8, 14)

    Raises ValueError when it is not one, or would take long to compile.
    """
    if pattern is None:
        return None
    if len(pattern) > MAX_CHARACTERS:
        raise ValueError(f"task.{option} has {len(pattern):,} characters, and a regular expression has at most {MAX_CHARACTERS:,}.")
    counts = [max(int(low or 1), int(high or 1), 1) for low, high in _COUNT.findall(pattern)]
    if (repeats := math.prod(counts)) > MAX_REPEATS:
        raise ValueError(f"task.{option} repeats {repeats:,} times, and at most {MAX_REPEATS:,} are allowed: {pattern[:60]!r}.")
    try:
        return Expression(option, regex.compile(pattern))
    except (regex.error, RecursionError, OverflowError, MemoryError, ValueError) as error:
        raise ValueError(f"task.{option} must be a regular expression, got {pattern[:60]!r} ({error}).") from None
