"""What a task of collected samples is, beside one of samples that are made: an answer belongs to its sample.

Where no generator stands behind a percept, nothing follows from a percept that is not p*: it cannot be drawn, solved or judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from percasym.types import SampleKey

Skill = Literal["draw", "solve", "valid", "verify"]
"""What a task may be unable to do."""
SKILLS: Mapping[Skill, str] = {
    "draw": "draw a percept",
    "solve": "solve a percept",
    "valid": "say whether a percept is possible",
    "verify": "say what follows from a percept that is not p*",
}
"""The same in words."""


@runtime_checkable
class Collected(Protocol):
    """What such a task has besides the methods of `percasym.tasks.base.Task`."""

    lacks: ClassVar[tuple[Skill, ...]]
    """Methods of `Task` that it refuses, with a ConfigError."""

    def right(self, key: SampleKey, answer: str) -> bool:
        """Is `answer` right for the sample of `key`?"""
        ...

    def about(self) -> Mapping[str, Any]:
        """What a run directory keeps of the data: `path`, `rows` of each split, `skipped` rows, `examples` of why, a `fingerprint`."""
        ...


def counted(about: Mapping[str, Any]) -> str:
    """The same in a sentence.

    >>> counted({"path": "a.jsonl", "rows": {"train_sft": 7, "test": 2}, "skipped": 1, "examples": ["a.jsonl, line 3: it is not JSON."]})
    'a.jsonl: 7 train_sft, 2 test rows, 1 skipped (a.jsonl, line 3: it is not JSON.)'
    """
    rows = ", ".join(f"{number} {split}" for split, number in about["rows"].items())
    left_out = f", {about['skipped']} skipped ({'; '.join(about['examples'])})" if about["skipped"] else ""
    return f"{about['path']}: {rows} rows{left_out}"
