"""One row of MM-HELIX or VGRP-Bench as an item: question, the same question in words, picture, percept, a right answer.

The percept is read from the puzzle that the row stores, and its stored answer must be right by our rules, or the row is refused: so a
format that is read wrongly ends the command with the row's location.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from percasym.tasks.given.files import Record
from percasym.tasks.given.item import Item
from percasym.tasks.given.messages import without_image_tag
from percasym.tasks.outside import graphs
from percasym.tasks.outside.boards import GRIDS, BoardRule
from percasym.tasks.outside.files import picture, text
from percasym.tasks.outside.graphs import Ends, adjacency, literal

RULES: Mapping[str, BoardRule | graphs.GraphRule] = {"sudoku": BoardRule(), **graphs.RULES}
"""How items of each category are read and graded."""
START = re.compile(r"starting (?:from|at) (?:vertex|node) (\w{1,8})", re.IGNORECASE)
SIZE = re.compile(r"_\d+x\d+\Z")
KIND_IN_PATH = re.compile(r"(?<![a-z])([a-z]+)_\d+x\d+(?!\d)")
VARIANTS = ("colors", "cages", "cell_types", "regions", "hints", "clues")
"""Keys of a VGRP-Bench puzzle that a plain Sudoku does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutsideItem(Item):
    """A parsed item."""

    category: str
    ends: Ends = field(default_factory=Ends)
    text_query: str | None = None
    """The question with the puzzle in words; None where the benchmark has only the picture."""
    asked: tuple[str, ...] = ()
    """The questions with the form of their response, for the check against the model."""

    @property
    def named_texts(self) -> Mapping[str, str]:
        """The longest question, and the reference response."""
        return {"query": max(self.asked, key=len), "perception": self.percept, "reasoning": self.reasoning, "answer": self.answer}


class Benchmark(Protocol):
    """The form in which a benchmark writes its rows."""

    @property
    def categories(self) -> tuple[str, ...]:
        """Kinds of items that are read."""
        ...

    def category(self, record: Record, path: Path) -> str:
        """The kind of a row. Raises ValueError where nothing says it."""
        ...

    def item(self, record: Record, folder: Path, path: Path) -> OutsideItem:
        """The item of a row of a supported kind. Raises ValueError with the reason when the row is malformed."""
        ...


@dataclass(frozen=True, slots=True)
class Helix:
    """MM-HELIX: category, question, question_text (of its generators: question_language), answer, initial_state and pictures."""

    categories: tuple[str, ...] = tuple(RULES)

    def category(self, record: Record, path: Path) -> str:
        """The column `category`. Raises ValueError when it is missing."""
        if (named := text(record, "category")) is None:
            raise ValueError(f"it has no category; its columns are {', '.join(record)}.")
        return named.strip()

    def item(self, record: Record, folder: Path, path: Path) -> OutsideItem:
        """The item of a row."""
        category = self.category(record, path)
        query = _needed(record, "question")
        state = record.get("initial_state")
        if isinstance(state, str):
            state = state.replace("\\n", "\n")  # VLMEvalKit writes some line breaks as two characters.
        if category == "sudoku":
            percept, ends = RULES[category].parse(str(state)), Ends()
        else:
            percept, ends = _graph(state, category, query)
        if percept is None:
            raise ValueError(f"its initial_state states no {'grid' if category == 'sudoku' else 'graph'}: {state!r:.60}.")
        answer = str(record.get("answer", "")).replace("\\n", "\n").strip()
        if not answer:
            raise ValueError("its answer is empty.")
        if not RULES[category].decided(percept, answer, ends):
            raise ValueError(f"its answer {answer[:60]!r} is not right for its initial_state.")
        return OutsideItem(
            picture=picture(record, folder, ("image_path", "images", "image")),
            query=query,
            text_query=text(record, "question_text", "question_language"),
            percept=percept,
            reasoning="",
            answer=answer,
            category=category,
            ends=ends,
        )


@dataclass(frozen=True, slots=True)
class VgrpBench:
    """VGRP-Bench: file_name (the picture), prompt and initialization; of VLMEvalKit's TSV image, question, states and category."""

    categories: tuple[str, ...] = ("sudoku",)

    def category(self, record: Record, path: Path) -> str:
        """The column `category` without the size, or the last name such as sudoku_4x4 in the path. Raises ValueError for neither."""
        if (named := text(record, "category")) is not None:
            return SIZE.sub("", named.strip())
        if names := KIND_IN_PATH.findall(path.as_posix().lower()):
            return names[-1]
        raise ValueError("it has no category, and no part of its path names one. Keep the name of its subset in the path, as sudoku_4x4.")

    def item(self, record: Record, folder: Path, path: Path) -> OutsideItem:
        """The item of a row."""
        self.category(record, path)
        puzzle = record.get("states", record.get("initialization"))
        if isinstance(puzzle, str):
            puzzle = literal(puzzle)
        if not isinstance(puzzle, Mapping) or "initialization" not in puzzle:
            raise ValueError(f"its states or initialization is no puzzle with an initialization: {puzzle!r:.60}.")
        if others := [name for name in VARIANTS if puzzle.get(name)]:
            raise ValueError(f"its puzzle has {others[0]}, so it is no plain Sudoku.")
        percept = RULES["sudoku"].parse(str(puzzle["initialization"]))
        answer = None if percept is None else GRIDS.solve(percept)
        if percept is None or answer is None:
            raise ValueError(f"its initialization is no Sudoku with a solution: {puzzle['initialization']!r:.60}.")
        return OutsideItem(
            picture=picture(record, folder, ("image", "file_name", "image_path")),
            query=_needed(record, "question", "prompt"),
            percept=percept,
            reasoning="",
            answer=answer,
            category="sudoku",
        )


HELIX, VGRP = Helix(), VgrpBench()


def _needed(record: Mapping[str, Any], *columns: str) -> str:
    found = text(record, *columns)
    if found is None:
        raise ValueError(f"it has no {' or '.join(columns)}; its columns are {', '.join(record)}.")
    query, _ = without_image_tag(found)
    return query


def _graph(state: object, category: str, query: str) -> tuple[str | None, Ends]:
    """The canonical graph of an initial_state, and the nodes that the question names."""
    value = literal(state) if isinstance(state, str) else state
    ends = Ends(start=match[1]) if (match := START.search(query)) else Ends()
    if isinstance(value, Mapping) and "adjacency_list" in value:
        named = {name: value.get(f"{name}_node") for name in ("start", "target")}
        ends = Ends(**{name: None if node is None else str(node) for name, node in named.items()})
        value = value["adjacency_list"]
    near = adjacency(value)
    return (None if near is None else graphs.RULES[category].canonical(near)), ends
