"""`task=hub`: rows of a folder or of the hub in the form of the paper's released sets.

    python train.py task=hub task.path=xqwu/asymmetric-VLM__sudoku         # pip install 'percasym[hub]'
    python train.py task=hub task.path=FOLDER task.preset=graph_coloring   # test.jsonl, train_sft.jsonl, train_rl.jsonl

With a preset, percepts and answers are read as puzzles, in any of the notations that the sets mix, and graded by the rules of the puzzle:
every valid solution is right. Without one they are free text, as under `task=jsonl`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from percasym.config.schema import one_of
from percasym.tasks.base import Skill
from percasym.tasks.given.files import Record
from percasym.tasks.given.picture import Source, image_source, read_sized_image
from percasym.tasks.given.rows import OfflineTable
from percasym.tasks.given.task import Format, Given
from percasym.tasks.released.found import Notation
from percasym.tasks.released.graphs import GraphNotation
from percasym.tasks.released.grids import GridNotation
from percasym.tasks.released.rows import Puzzle, build, parse_row, rows_of
from percasym.types import Prompt, Sample, SampleKey

Preset = Literal["auto", "none", "sudoku", "graph_coloring"]
RELEASED: Mapping[str, Preset] = {"xqwu/asymmetric-VLM__sudoku": "sudoku", "xqwu/asymmetric-VLM__gc": "graph_coloring"}
"""The released sets (arXiv:2605.29496) by their ids on the hub."""
NOTATIONS: Mapping[str, Notation] = {"sudoku": GridNotation(), "graph_coloring": GraphNotation()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub(Given):
    """Rows with the columns image, query, ground_truth and response, in the splits train_sft, train_rl and test."""

    format: Format = "hub"
    """`hub` (image, query, ground_truth, response) has its own splits; `columns` is that of task=jsonl."""
    preset: Preset = "auto"
    """How percepts and answers are read: sudoku, graph_coloring, none (free text), or auto: by the id of the released set."""

    def __post_init__(self) -> None:
        Given.__post_init__(self)
        one_of("task", Preset, preset=self.preset)
        for name in ("boundary", "boundary_file", "ground_truth"):
            if self._notation and getattr(self, name) is not None:
                raise ValueError(f"task.{name} is for free text, and task.preset={self._preset} reads puzzles. Leave one out.")
        if self._notation and self.format != "hub":
            raise ValueError(f"task.preset={self._preset} reads rows with a ground_truth, and task.format={self.format} has none.")

    @property
    def lacks(self) -> tuple[Skill, ...]:  # type: ignore[override]
        """A puzzle can be solved and checked, but not drawn as its collectors drew it."""
        return ("draw",) if self._notation else Given.lacks

    @property
    def table(self) -> OfflineTable:
        """All rows, read at first use and cached. Raises ValueError with the location of a bad row."""
        return _puzzles(self) if self._notation else super(Hub, self).table

    def sample(self, key: SampleKey) -> Sample:
        """The sample of a key; of a puzzle, its picture is read and decoded here.

        Raises ValueError when its split is empty or exhausted, and when its picture cannot be decoded.
        """
        if self._notation is None:
            return Given.sample(self, key)
        item = self.table.item(key)
        image, size = read_sized_image(_picture(self, item), self._limits)
        if self._check is not None:
            self._check(item.named_texts, size)
        prompt = Prompt(key=key, image=image, question=item.query)
        return Sample(prompt=prompt, truth=item.percept, solution=item.answer, demonstration=item.demonstration)

    def right(self, key: SampleKey, truth: str, answer: str) -> bool:
        """Whether `answer` solves p*; of free text, whether it equals the answer of the row."""
        return self._notation.verify(truth, answer) if self._notation else Given.right(self, key, truth, answer)

    def parse(self, text: str) -> str | None:
        """The canonical form of a stated percept, in any notation; None if it is malformed."""
        return self._notation.parse(text) if self._notation else Given.parse(self, text)

    def agreement(self, truth: str, stated: str) -> float:
        """Cell accuracy or edge F1, as of the generated task; of free text, 1 - edit distance / length."""
        return self._notation.agreement(truth, stated) if self._notation else Given.agreement(self, truth, stated)

    def canonical(self, percept: str) -> str:
        """A representative of all percepts that count as the same puzzle."""
        return self._notation.canonical(percept) if self._notation else Given.canonical(self, percept)

    def verify(self, percept: str, answer: str) -> bool:  # type: ignore[override]
        """Whether `answer` solves `percept`. Raises ConfigError for free text."""
        return self._notation.verify(percept, answer) if self._notation else Given.verify(self, percept, answer)

    def solve(self, percept: str) -> str | None:  # type: ignore[override]
        """A solution of a canonical percept. Raises ConfigError for free text."""
        return self._notation.solve(percept) if self._notation else Given.solve(self, percept)

    def valid(self, percept: str) -> bool:  # type: ignore[override]
        """Whether a row can have this percept. Raises ConfigError for free text."""
        if self._notation is None:
            return Given.valid(self, percept)
        stated = self.parse(percept)
        return stated is not None and self._notation.valid(stated)

    @property
    def _preset(self) -> Preset:
        return RELEASED.get(self.path, "none") if self.preset == "auto" else self.preset

    @property
    def _notation(self) -> Notation | None:
        return NOTATIONS.get(self._preset)


def _picture(task: Hub, item: object) -> Source:
    assert isinstance(item, Puzzle)
    return item.picture if item.stored is None else image_source(item.stored(), Path(task.path).expanduser())


@lru_cache(maxsize=2)  # One for a run; two, so that tests and comparisons do not alternate.
def _puzzles(task: Hub) -> OfflineTable:
    folder, notation = Path(task.path).expanduser(), task._notation
    assert notation is not None, "free text has a table of its own"

    def parse(record: Record, split: str) -> Puzzle:
        puzzle = parse_row(record, notation, folder=folder, trained=split == "train_sft", deferred=True)
        task.require_inside(puzzle.picture, folder)
        if isinstance(puzzle.picture, Path) and not puzzle.picture.is_file():
            raise ValueError(f"its image {puzzle.picture} is no file.")
        return puzzle

    rows = rows_of(task.path, max_bytes=task.max_bytes)
    return build(rows, parse, notation, source=task.path, skip=task.on_error == "skip", check=task._check)
