"""`task=mm_helix` and `task=vgrp`: items of two public benchmarks, as an outside yardstick. Test rows only.

    percasym evaluate CHECKPOINT task=mm_helix task.path=MM-HELIX.tsv          # or its Parquet, or a folder of annotations.json
    percasym evaluate CHECKPOINT task=vgrp task.path=sudoku_4x4.parquet

Of MM-HELIX (arXiv:2510.08540) the Sudokus and the graph questions that store their graph are read; each has the same item as picture and
as text, so `reasoning_text` is the outside counterpart of a_r. Of VGRP-Bench (arXiv:2503.23064) the plain Sudokus. Unlike a comparison
with the stored answer, any right answer counts, and what the model says it saw is graded too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from percasym.config.files import home
from percasym.config.schema import ConfigError
from percasym.spans.grammar import Grammar
from percasym.tasks.base import SKILLS, Skill
from percasym.tasks.given.collected import Collected
from percasym.tasks.given.files import Record, Row
from percasym.tasks.given.picture import read_image
from percasym.tasks.given.rows import OfflineTable, build_table
from percasym.tasks.outside.files import outside_rows
from percasym.tasks.outside.items import HELIX, RULES, VGRP, Benchmark, OutsideItem
from percasym.types import Prompt, Sample, SampleKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside(Collected):
    """Items of a benchmark that others made: a question, a picture, the percept that it shows, and the rules of its puzzle."""

    name: ClassVar[str] = "outside"
    benchmark: ClassVar[Benchmark]
    lacks: ClassVar[tuple[Skill, ...]] = ("draw", "solve", "valid")

    path: str
    """A file of the benchmark (TSV, JSON or Parquet), or its folder."""
    category: tuple[str, ...] = ()
    """Kinds of items; all that are supported if empty."""
    instruction: str | None = None
    """Text after each question that asks for the response's form; null asks for the tags of this package, "" for nothing."""

    def __post_init__(self) -> None:
        Collected.__post_init__(self)
        if unknown := [name for name in self.category if name not in self.benchmark.categories]:
            raise ValueError(f"task.category must be among {', '.join(self.benchmark.categories)}, got {unknown[0]!r}.")

    @property
    def table(self) -> OfflineTable:
        """All items, read at first use and cached. Raises ValueError with the location of a bad row."""
        return _table(self)

    def sample(self, key: SampleKey) -> Sample:
        """The sample of a key. Raises ValueError outside the test split and past its end."""
        item = self._item(key)
        prompt = Prompt(key=key, image=read_image(item.picture, self._limits), question=self._asked(item.query, item))
        return Sample(
            prompt=prompt,
            truth=item.percept,
            solution=item.answer,
            demonstration=item.demonstration,
            content=item.content,
            text_question=None if item.text_query is None else self._asked(item.text_query, item),
        )

    def truth(self, key: SampleKey) -> str:
        """The percept of a key's sample alone."""
        return self._item(key).percept

    def right(self, key: SampleKey, truth: str, answer: str) -> bool:
        """Whether `answer` is right for the question of `key` about `truth`, or about any other percept, by the rules of the puzzle."""
        item = self._item(key)
        return RULES[item.category].right(truth, answer, item.ends)

    def parse(self, text: str) -> str | None:
        """The canonical form of a stated grid or graph; None if it is malformed."""
        return next((percept for rule in self._rules if (percept := rule.parse(text)) is not None), None)

    def agreement(self, truth: str, stated: str) -> float:
        """Cell accuracy or edge F1; 0 between a grid and a graph."""
        both = (rule for rule in self._rules if rule.parse(truth) == truth and rule.parse(stated) == stated)
        return next((rule.agreement(truth, stated) for rule in both), 0.0)

    def canonical(self, percept: str) -> str:
        """The percept itself."""
        return percept

    def verify(self, percept: str, answer: str) -> NoReturn:
        """Raises ConfigError: an answer is right for a question, which the percept alone does not say (`right` has it)."""
        raise ConfigError(f"task={self.name} grades answers to its own questions, and nobody can say what follows from a percept alone.")

    def draw(self, percept: str, key: SampleKey) -> NoReturn:
        """Raises ConfigError."""
        self._refuse("draw")

    def solve(self, percept: str) -> NoReturn:
        """Raises ConfigError."""
        self._refuse("solve")

    def valid(self, percept: str) -> NoReturn:
        """Raises ConfigError."""
        self._refuse("valid")

    @property
    def _rules(self) -> Iterator[Any]:
        return (RULES[name] for name in self.category or self.benchmark.categories)

    def _item(self, key: SampleKey) -> OutsideItem:
        if key.split != "test":
            raise ValueError(f"task={self.name} is for evaluation, and has no rows of split {key.split}. Train on another task.")
        item = self.table.item(key)
        assert isinstance(item, OutsideItem)
        return item

    def _asked(self, question: str, item: OutsideItem) -> str:
        """A question with the form of its response."""
        if self.instruction is not None:
            return f"{question.rstrip()}\n{self.instruction}" if self.instruction else question
        tags = Grammar()
        return (
            f"{question.rstrip()}\n\nUse this form, in place of any other named above. First write {tags.open_perception}, "
            f"{RULES[item.category].form}, and {tags.close_perception}. Then reason step by step. "
            f"Last, write {tags.open_answer}, the answer, and {tags.close_answer}. "
            "Write each tag exactly once, and nothing before the first or after the last."
        )

    def _refuse(self, skill: Skill) -> NoReturn:
        raise ConfigError(f"The items of {self.path} were made by others: nobody can {SKILLS[skill]}. Choose what does not ask for it.")


@dataclass(frozen=True, slots=True, kw_only=True)
class MmHelix(Outside):
    """Sudokus and graph questions of MM-HELIX in the form in which VLMEvalKit, its authors' data set or its generators write them."""

    name: ClassVar[str] = "mm_helix"
    benchmark: ClassVar[Benchmark] = HELIX


@dataclass(frozen=True, slots=True, kw_only=True)
class Vgrp(Outside):
    """Sudokus of VGRP-Bench in the form of its data set, of its JSON of responses, or of VLMEvalKit's TSV."""

    name: ClassVar[str] = "vgrp"
    benchmark: ClassVar[Benchmark] = VGRP


@lru_cache(maxsize=2)  # One for a run; two, so that tests and comparisons do not alternate.
def _table(task: Outside) -> OfflineTable:
    path = home(Path(task.path))
    folder, wanted = path if path.is_dir() else path.parent, task.category or task.benchmark.categories
    left_out = Counter[str]()

    def chosen() -> Iterator[Row]:
        for row in outside_rows(path, max_bytes=task.max_bytes):
            try:
                category = task.benchmark.category(row.record, path)
            except ValueError:
                category = None  # `parse` refuses it with its location.
            if category is None or category in wanted:
                yield row
            else:
                left_out[category] += 1

    def parse(record: Record) -> OutsideItem:
        item = task.benchmark.item(record, folder, path)
        task.require_inside(item.picture, folder)
        if isinstance(item.picture, Path) and not item.picture.is_file():
            raise ValueError(f"its image {item.picture} is no file.")
        return replace(item, asked=tuple(task._asked(query, item) for query in (item.query, item.text_query) if query is not None))

    try:
        table = build_table(chosen(), parse, task.look, source=task.path, skip=task.on_error == "skip", check=task._check)
    except ValueError as error:
        if left_out and "has no rows" in str(error):
            raise ValueError(f"{task.path} has no rows of {', '.join(wanted)}; its rows are of {', '.join(sorted(left_out))}.") from None
        raise
    items = Counter(item.category for item in table.items["test"] if isinstance(item, OutsideItem))
    notes = [f"Items: {', '.join(f'{number} {category}' for category, number in sorted(items.items()))}."]
    if left_out:
        others = ", ".join(f"{number} {category}" for category, number in sorted(left_out.items()))
        notes.append(f"Left out: {others}.")
    return replace(table, notes=[*table.notes, *notes])
