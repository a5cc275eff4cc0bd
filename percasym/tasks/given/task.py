"""Collected data as a task: rows of a file, a folder or the hub, with stored answers and no generator.

    python train.py task=jsonl task.path=rows.jsonl          python train.py task=hub task.path=FOLDER_OR_HUB_ID

Unlike a generated task it cannot draw, solve or validate a percept; those methods raise ConfigError.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal, NoReturn

from rapidfuzz.distance import Levenshtein

from percasym.config.files import home, read_text
from percasym.config.schema import ConfigError, one_of
from percasym.tasks.base import SKILLS, Skill
from percasym.tasks.given.collected import Collected
from percasym.tasks.given.files import Record, read_rows
from percasym.tasks.given.item import Item, from_columns, from_hub, same_words, tidy
from percasym.tasks.given.patterns import Expression, compiled
from percasym.tasks.given.picture import read_image
from percasym.tasks.given.rows import OfflineTable, build_table, released_rows
from percasym.types import Prompt, Sample, SampleKey

Format = Literal["columns", "hub"]
MAX_PATTERN_BYTES = 2**16
"""Of task.boundary_file; a larger file is something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given(Collected):
    """Rows of a file, a folder or the hub; percepts are free text, compared line by line up to white space.

    A row has the columns image (or images) and query, and then perception, reasoning and answer, or one tagged response, or a response
    that `boundary` cuts in two, beside its answer; or it is a chat row (`messages`, `conversations`) of one turn. docs/your-data.md lists
    what is read and what is refused.
    """

    name: ClassVar[str] = "given"
    lacks: ClassVar[tuple[Skill, ...]] = ("draw", "solve", "valid", "verify")

    path: str
    """A file of JSON lines, a JSON array or Parquet; with format=hub a folder of <split>.jsonl, or whatever the package datasets loads."""
    format: Format = "columns"
    """`columns` assigns rows to splits by a column `split`, or by their picture; `hub` (image, query, ground_truth, response) has its
    own."""
    boundary: str | None = None
    """Regular expression between perception and reasoning in an untagged response, dropped; or one with the groups percept and
    reasoning."""
    boundary_file: str | None = None
    """A file that holds the regular expression, for one that a shell would change; its last line end does not count."""
    ground_truth: str | None = None
    """Regular expression with a group `percept`, a group `answer`, or both, for format=hub; null reads tags, or takes it as the answer."""

    def __post_init__(self) -> None:
        one_of("task", Format, format=self.format)
        Collected.__post_init__(self)
        cut = self._boundary()
        if cut and cut.groupindex and not {"percept", "reasoning"} <= set(cut.groupindex):
            raise ValueError(f"A boundary with groups must name both percept and reasoning, as (?P<percept>...), got {cut.pattern!r}.")
        pattern = compiled("ground_truth", self.ground_truth)
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
        return read_image(item.picture, self._limits)

    def _boundary(self) -> Expression | None:
        """The boundary, from the option or its file."""
        if self.boundary_file is None:
            return compiled("boundary", self.boundary)
        if self.boundary is not None:
            raise ValueError("task.boundary and task.boundary_file are both set. Leave one out.")
        try:
            text = read_text(Path(self.boundary_file), max_bytes=MAX_PATTERN_BYTES)
        except OSError as error:
            raise ValueError(f"task.boundary_file={self.boundary_file} cannot be read ({error.strerror}).") from None
        if not text.strip("\r\n"):
            raise ValueError(f"task.boundary_file={self.boundary_file} must hold a regular expression, and it is empty.")
        return compiled("boundary_file", text.removesuffix("\n").removesuffix("\r"))

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
    path, boundary = home(Path(task.path)), task._boundary()
    ground_truth, hub = compiled("ground_truth", task.ground_truth), task.format == "hub"
    folder = path if hub or path.is_dir() else path.parent

    def parse(record: Record) -> Item:
        item = from_hub(record, folder, boundary, ground_truth) if hub else from_columns(record, folder, boundary)
        task.require_inside(item.picture, folder)
        return item

    rows = released_rows(task.path, max_bytes=task.max_bytes) if hub else read_rows(path, max_bytes=task.max_bytes)
    return build_table(rows, parse, task.look, source=task.path, skip=task.on_error == "skip", check=task._check)
