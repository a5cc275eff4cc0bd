"""Regular expressions of the user (`task.boundary`, `task.ground_truth`), with a limit of time for each row.

Unlike `re`, the package regex can be interrupted: an expression such as (a+)+b tries 2^n ways to match n letters, and a file of a study
chooses both the expression and the rows.
"""

from __future__ import annotations

import math
import re

import regex

SECONDS = 1.0
"""For one row (our choice): an expression that does not backtrack needs microseconds."""
MAX_CHARACTERS = 4096
"""Of an expression; compiling a longer one takes seconds."""

MAX_REPEATS = 10_000
"""Product of the counts {m,n} of an expression: regex compiles (a{1000}){1000} to a million nodes."""
_COUNT = re.compile(r"\{(\d*),?(\d*)\}")

Pattern = regex.Pattern
Match = regex.Match


def compiled(option: str, pattern: str | None) -> Pattern[str] | None:
    """The expression of an option of the task; None where there is none. Raises ValueError when it is not one."""
    if pattern is None:
        return None
    if len(pattern) > MAX_CHARACTERS:
        raise ValueError(f"task.{option} has {len(pattern):,} characters, and a regular expression has at most {MAX_CHARACTERS:,}.")
    counts = [max(int(low or 1), int(high or 1), 1) for low, high in _COUNT.findall(pattern)]
    if (repeats := math.prod(counts)) > MAX_REPEATS:
        raise ValueError(f"task.{option} repeats {repeats:,} times, and at most {MAX_REPEATS:,} are allowed: {pattern[:60]!r}.")
    try:
        return regex.compile(pattern)
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise ValueError(f"task.{option} must be a regular expression, got {pattern!r} ({error}).") from None


def search(option: str, pattern: Pattern[str], text: str, seconds: float = SECONDS) -> Match[str] | None:
    """The first match in `text`.

    >>> found = search("boundary", regex.compile(" ?THINK"), "Two red. THINK")
    >>> found and found.span()
    (8, 14)

    Raises ValueError when the search takes longer than `seconds`.
    """
    try:
        return pattern.search(text, timeout=seconds)
    except TimeoutError:
        short = pattern.pattern[:60]
        raise ValueError(f"task.{option}={short!r} has not matched after {seconds:g} seconds. Write it without nested repetition.") from None
