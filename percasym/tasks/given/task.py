"""Collected data as a task: rows of a file, a folder or the hub, with stored answers and no generator.

    python train.py task=jsonl task.path=rows.jsonl          python train.py task=hub task.path=FOLDER_OR_HUB_ID

Unlike a generated task it cannot draw, solve or validate a percept; those methods raise ConfigError.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn

from rapidfuzz.distance import Levenshtein

from percasym.config.schema import ConfigError, at_least, one_of
from percasym.tasks.base import SKILLS, Skill
from percasym.tasks.given.item import Item, Record, from_columns, from_hub, read_image, same_words, tidy
from percasym.tasks.given.rows import OfflineTable, build_table, json_lines, released_rows
from percasym.types import Prompt, Sample, SampleKey

Format = Literal["columns", "hub"]
OnError = Literal["raise", "skip"]
NUM_EXAMPLES = 3
"""Skipped rows whose reason is kept in the run directory; all are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Rows of a file, a folder or the hub; percepts are free text, compared line by line up to white space.

    A row has the columns image and query, and then perception, reasoning and answer, or one tagged response, or a response that
    `boundary` cuts in two, beside its answer. `image` is a path relative to the file, or base64.
    """

    name: ClassVar[str] = "given"
    lacks: ClassVar[tuple[Skill, ...]] = ("draw", "solve", "valid", "verify")

    path: str
    """A file of JSON lines; with format=hub a folder of <split>.jsonl, or anything the package datasets loads."""
    format: Format = "columns"
    """`columns` assigns rows to splits by their content; `hub` (image, query, ground_truth, response) has its own splits."""
    boundary: str | None = None
    """Regular expression between perception and reasoning in an untagged response; its first match is dropped."""
    ground_truth: str | None = None
    """Regular expression with a group `percept`, a group `answer`, or both, for format=hub; null reads tags, or takes it as the answer."""
    on_error: OnError = "raise"
    """Stop at the first bad row, or skip bad rows and count them."""
    max_bytes: int = 2**24
    """Of one line, and of one image file (our choice: 16 MiB)."""
    max_pixels: int = 2**24
    """Of one image (our choice: 4,096 x 4,096, 48 MiB decoded)."""

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
        """All rows, read at first use and cached.

        Raises ValueError with the location of a bad row.
        """
        return _table(self)

    def about(self) -> Mapping[str, Any]:
        """What a run directory records of the data: path, rows of each split, skipped rows, fingerprint."""
        table = self.table
        rows = {split: len(items) for split, items in table.items.items()}
        skipped = {"skipped": len(table.skipped), "examples": list(table.skipped[:NUM_EXAMPLES])}
        return {"path": self.path, "rows": rows, **skipped, "fingerprint": table.fingerprint}

    def sample(self, key: SampleKey) -> Sample:
        """The sample of a key. Raises ValueError when its split is empty or exhausted."""
        item = self.table.item(key)
        prompt = Prompt(key=key, image=self.image(item), question=item.query)
        return Sample(prompt=prompt, truth=item.percept, solution=item.answer, demonstration=item.demonstration, content=item.content)

    def truth(self, key: SampleKey) -> str:
        """The percept of a key's sample alone."""
        return self.table.item(key).percept

    def right(self, key: SampleKey, truth: str, answer: str) -> bool:
        """Whether `answer` equals that of the key's row up to white space."""
        return same_words(answer, self.table.item(key).answer)

    def parse(self, text: str) -> str | None:
        """The text with its white space normalised; None when nothing is left."""
        return tidy(text) or None

    def agreement(self, truth: str, stated: str) -> float:
        """1 - edit distance / length of the longer text, after white space is normalised."""
        return similarity(tidy(truth), tidy(stated))

    def canonical(self, percept: str) -> str:
        """The percept with its white space normalised; free text has no other symmetry."""
        return tidy(percept)

    def verify(self, percept: str, answer: str) -> NoReturn:
        """Raises ConfigError."""
        self._refuse("verify")

    def draw(self, percept: str, key: SampleKey) -> NoReturn:
        """Raises ConfigError."""
        self._refuse("draw")

    def solve(self, percept: str) -> NoReturn:
        """Raises ConfigError."""
        self._refuse("solve")

    def valid(self, percept: str) -> NoReturn:
        """Raises ConfigError."""
        self._refuse("valid")

    def image(self, item: Item) -> bytes:
        """The image of a row as PNG bytes."""
        return read_image(item.picture, max_pixels=self.max_pixels, max_bytes=self.max_bytes)

    def _refuse(self, skill: Skill) -> NoReturn:
        raise ConfigError(f"The rows of {self.path} were collected, not made: nobody can {SKILLS[skill]}. Choose what does not ask for it.")


def similarity(one: str, other: str) -> float:
    """1 - Levenshtein distance / length of the longer text, in [0, 1]; 1 exactly when both are equal.

    >>> similarity("red 2", "red 3"), similarity("", "")
    (0.8, 1.0)
    """
    return 1 - Levenshtein.distance(one, other) / max(len(one), len(other), 1)


@lru_cache(maxsize=2)  # One for a run; two, so that tests and comparisons do not alternate.
def _table(task: Given) -> OfflineTable:
    path, boundary = Path(task.path).expanduser(), _compiled("boundary", task.boundary)
    ground_truth, hub = _compiled("ground_truth", task.ground_truth), task.format == "hub"
    folder = path if hub else path.parent

    def parse(record: Record) -> Item:
        return from_hub(record, folder, boundary, ground_truth) if hub else from_columns(record, folder, boundary)

    rows = released_rows(task.path, max_bytes=task.max_bytes) if hub else json_lines(path, max_bytes=task.max_bytes)
    return build_table(rows, parse, task.image, source=task.path, skip=task.on_error == "skip")


def _compiled(option: str, pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"task.{option} must be a regular expression, got {pattern!r} ({error}).") from None
