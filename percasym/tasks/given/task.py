"""Someone else's data as a task: it was collected, so it knows its own answers and can make no others.

    python train.py task=jsonl task.path=rows.jsonl          python train.py task=hub task.path=FOLDER_OR_HUB_ID

What a generated task can do beyond that (draw a percept, solve it, say whether it could be) is refused in one sentence.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn

from percasym.config.schema import ConfigError, at_least, one_of
from percasym.tasks.base import SKILLS, Skill
from percasym.tasks.given.item import Item, Record, from_columns, from_hub
from percasym.tasks.given.likeness import agreement, same, tidy
from percasym.tasks.given.picture import read_picture
from percasym.tasks.given.source import lines, released
from percasym.tasks.given.table import OfflineTable, gather
from percasym.types import Prompt, Sample, SampleKey

Format = Literal["columns", "hub"]
OnError = Literal["raise", "skip"]
NUM_EXAMPLES = 3
"""Skipped rows that a run directory explains; it counts all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Rows of a file, a folder or the hub; a percept is any text, equal when its words are, line by line.

    A row has the columns image and query, and then perception, reasoning and answer, or one tagged response, or a response that
    `boundary` cuts in two, beside its answer. `image` is a path relative to the file, or base64.
    """

    name: ClassVar[str] = "given"
    lacks: ClassVar[tuple[Skill, ...]] = ("draw", "solve", "valid", "verify")

    path: str
    """A file of JSON lines; with format=hub a folder of <split>.jsonl, or what the package datasets loads."""
    format: Format = "columns"
    """`columns` deals rows to splits by their content; `hub` (image, query, ground_truth, response) has splits of its own."""
    boundary: str | None = None
    """Regular expression between perception and reasoning in an untagged response; its first match is dropped."""
    ground_truth: str | None = None
    """Regular expression with a group `percept`, a group `answer`, or both, for format=hub; null reads tags, or takes it as the answer."""
    on_error: OnError = "raise"
    """Stop at the first bad row, or leave bad rows out and count them."""
    max_bytes: int = 2**24
    """Of one line, and of one picture file (our choice: 16 MiB)."""
    max_pixels: int = 2**24
    """Of one picture (our choice: 4,096 x 4,096, 48 MiB decoded)."""

    def __post_init__(self) -> None:
        one_of("task", Format, format=self.format)
        one_of("task", OnError, on_error=self.on_error)
        at_least("task", 1, max_bytes=self.max_bytes, max_pixels=self.max_pixels)
        _compiled("boundary", self.boundary)
        pattern = _compiled("ground_truth", self.ground_truth)
        if pattern and self.format != "hub":
            raise ValueError("task.ground_truth is for task=hub; rows of task=jsonl say their answer in a column, or tagged.")
        if pattern and not {"percept", "answer"} & set(pattern.groupindex):
            raise ValueError(f"task.ground_truth must name a group percept or answer, as (?P<answer>...), got {self.ground_truth!r}.")

    @property
    def table(self) -> OfflineTable:
        """All rows; read at the first call.

        Raises ValueError for a bad row, with its place.
        """
        return _table(self)

    def about(self) -> Mapping[str, Any]:
        """What a run directory keeps of the data; the fingerprint is of all that was read."""
        table = self.table
        rows = {split: len(items) for split, items in table.items.items()}
        skipped = {"skipped": len(table.skipped), "examples": list(table.skipped[:NUM_EXAMPLES])}
        return {"path": self.path, "rows": rows, **skipped, "fingerprint": table.fingerprint}

    def sample(self, key: SampleKey) -> Sample:
        """The sample of a key. Raises ValueError where there is none."""
        item = self.table.item(key)
        prompt = Prompt(key=key, image=self.picture(item), question=item.query)
        return Sample(prompt=prompt, truth=item.percept, solution=item.answer, demonstration=item.demonstration, content=item.content)

    def truth(self, key: SampleKey) -> str:
        """The percept of a key's sample alone."""
        return self.table.item(key).percept

    def right(self, key: SampleKey, truth: str, answer: str) -> bool:
        """Is `answer` that of the key's row, white space apart?"""
        return same(answer, self.table.item(key).answer)

    def parse(self, text: str) -> str | None:
        """The text with its white space made one; None when nothing is left."""
        return tidy(text) or None

    def agreement(self, truth: str, stated: str) -> float:
        """1 - edits / length of the longer text."""
        return agreement(tidy(truth), tidy(stated))

    def canonical(self, percept: str) -> str:
        """The percept itself: nothing is known that would make two of them one."""
        return tidy(percept)

    def verify(self, percept: str, answer: str) -> NoReturn:
        """Refused."""
        self._cannot("verify")

    def draw(self, percept: str, key: SampleKey) -> NoReturn:
        """Refused."""
        self._cannot("draw")

    def solve(self, percept: str) -> NoReturn:
        """Refused."""
        self._cannot("solve")

    def valid(self, percept: str) -> NoReturn:
        """Refused."""
        self._cannot("valid")

    def picture(self, item: Item) -> bytes:
        """The picture of a row as PNG bytes."""
        return read_picture(item.picture, max_pixels=self.max_pixels, max_bytes=self.max_bytes)

    def _cannot(self, skill: Skill) -> NoReturn:
        raise ConfigError(f"The rows of {self.path} were collected, not made: nobody can {SKILLS[skill]}. Choose what does not ask for it.")


@lru_cache(maxsize=2)  # One for a run; two, so that tests and comparisons do not read in turns.
def _table(task: Given) -> OfflineTable:
    path, boundary = Path(task.path).expanduser(), _compiled("boundary", task.boundary)
    ground_truth, hub = _compiled("ground_truth", task.ground_truth), task.format == "hub"
    folder = path if hub else path.parent

    def read(record: Record) -> Item:
        return from_hub(record, folder, boundary, ground_truth) if hub else from_columns(record, folder, boundary)

    rows = released(task.path, max_bytes=task.max_bytes) if hub else lines(path, max_bytes=task.max_bytes)
    return gather(rows, read, task.picture, source=task.path, skip=task.on_error == "skip")


def _compiled(option: str, pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"task.{option} must be a regular expression, got {pattern!r} ({error}).") from None
