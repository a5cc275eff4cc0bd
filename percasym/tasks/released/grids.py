"""Sudoku grids in text: JSON with 0 or null for an empty cell, lines with "-" or ".", tables, one string.

The canonical text is lines of cells separated by single spaces, "-" for an empty cell (what the released queries ask for). Grading is that
of `percasym.tasks.sudoku`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from percasym.tasks.canvas import Look
from percasym.tasks.released.found import Found, alone, found
from percasym.tasks.sudoku import puzzle
from percasym.tasks.sudoku.grid import BOXES, Cells, has_clash, write
from percasym.tasks.sudoku.puzzle import FEWEST, is_solved_by
from percasym.tasks.sudoku.solver import solve
from percasym.tasks.sudoku.task import Sudoku

EMPTY = "-"
SIZES = {size * size: size for size in BOXES}
"""Side of a grid by its number of cells."""

JSON_GRID = re.compile(r"\[\s*\[[^\[\]{}]{4,200}\](?:\s*,\s*\[[^\[\]{}]{4,200}\]){3,8}\s*,?\s*\]")
JSON_ROW = re.compile(r"\[([^\[\]]+)\]")
JSON_CELL = re.compile(r"""null|None|"[^"]?"|'[^']?'|\d+|[-._]""")
ROW = re.compile(r"""^[ \t]*(?:[Rr](?:ow)?[ \t]*\d[ \t]*:)?[|\[({ \t]*((?:["']?[0-9._-]["']?[ \t,|;&]*){4,9})[\])} \t,]*$""", re.MULTILINE)
"""A line of cells, with or without separators."""
ROW_CELL = re.compile(r"[0-9._-]")
RULE = re.compile(r"[ \t|+=:-]*")
"""A line between bands of boxes."""
STRING = re.compile(r"(?<![\w.-])[0-9._-]{81}(?![\w.-])")
STRING_CELLS = re.compile(r"[0-9._-]{81}")
"""Found several times as fast as `STRING`, whose look-behind is tried at every character."""


@dataclass(frozen=True, slots=True)
class GridNotation:
    """Sudoku grids of sizes 4, 6 and 9."""

    def percepts(self, text: str) -> Sequence[Found]:
        """Grids with empty cells and without a clash."""
        unsolved = ((cells, start, end) for cells, start, end in grids(text) if 0 in cells and not _clashes(cells))
        return [found(to_text(cells), text, start, end) for cells, start, end in unsolved]

    def answers(self, text: str, percept: str) -> Sequence[Found]:
        """Full grids of the percept's size."""
        num = len(from_text(percept))
        return [found(to_text(cells), text, start, end) for cells, start, end in grids(text) if 0 not in cells and len(cells) == num]

    def parse(self, text: str) -> str | None:
        """The canonical text of exactly one grid, full or not."""
        return alone([found(to_text(cells), text, start, end) for cells, start, end in grids(text)], text)

    def agreement(self, truth: str, stated: str) -> float:
        """Cell accuracy; 0 for grids of different sizes."""
        one, other = from_text(truth), from_text(stated)
        return _TASKS[_size(one)].agreement(_digits(one), _digits(other)) if len(one) == len(other) else 0.0

    def verify(self, percept: str, answer: str) -> bool:
        """Whether `answer` is a full valid grid that keeps the givens."""
        stated = self.parse(answer)
        if stated is None:
            return False
        givens, full = from_text(percept), from_text(stated)
        return len(givens) == len(full) and _TASKS[_size(givens)].verify(_digits(givens), _digits(full))

    def solve(self, percept: str) -> str | None:
        """A solution; None when there is none."""
        cells = from_text(percept)
        full = None if _clashes(cells) else solve(cells, _size(cells))
        return None if full is None else to_text(full)

    def valid(self, percept: str) -> bool:
        """Whether the grid has exactly one solution."""
        cells = from_text(percept)
        return is_solved_by(cells, _size(cells), "any")

    def canonical(self, percept: str) -> str:
        """The percept with its digits renamed by first appearance."""
        return puzzle.canonical(_digits(from_text(percept)))


@lru_cache(maxsize=64)  # Each text of a row is searched several times; a data set has few queries.
def grids(text: str) -> tuple[tuple[Cells, int, int], ...]:
    """Every grid that a text states, with its first character and the one behind its last.

    >>> [(len(cells), text_end) for cells, _, text_end in grids("1 - | 3 4\\n- - | 2 1\\n----+----\\n3 4 | - -\\n- - | - 2")]
    [(16, 49)]
    """
    stated = [*_json_grids(text), *_line_grids(text), *_strings(text)]
    kept = list[tuple[Cells, int, int]]()
    for cells, start, end in sorted(stated, key=lambda one: (one[1], -one[2])):
        if not kept or start >= kept[-1][2]:  # Lines of a JSON grid are a grid of lines, too.
            kept.append((cells, start, end))
    return tuple(kept)


@lru_cache(maxsize=64)  # A row states its puzzle several times.
def _clashes(cells: Cells) -> bool:
    return has_clash(cells, _size(cells))


@lru_cache(maxsize=64)
def to_text(cells: Cells) -> str:
    """The canonical text.

    >>> to_text((1, 0, 3, 4, 0, 0, 2, 1, 3, 4, 0, 0, 0, 0, 0, 2)).splitlines()
    ['1 - 3 4', '- - 2 1', '3 4 - -', '- - - 2']
    """
    size = _size(cells)
    shown = [str(cell) if cell else EMPTY for cell in cells]
    return "\n".join(" ".join(shown[start : start + size]) for start in range(0, len(cells), size))


@lru_cache(maxsize=64)
def from_text(canonical: str) -> Cells:
    """The cells of a canonical text."""
    return tuple(0 if cell == EMPTY else int(cell) for cell in canonical.split())


def _size(cells: Cells) -> int:
    return SIZES[len(cells)]


def _digits(cells: Cells) -> str:
    """The text form of `percasym.tasks.sudoku`."""
    return write(cells, _size(cells))


_TASKS = {
    size: Sudoku(size=size, givens=(FEWEST[size]["any"], size * size - 1), techniques="any", look=Look(image_px=8 * size)) for size in BOXES
}
"""Their graders; the other options are not used."""


def _json_grids(text: str) -> Iterator[tuple[Cells, int, int]]:
    for match in JSON_GRID.finditer(text):
        rows = [[_cell(cell) for cell in JSON_CELL.findall(row)] for row in JSON_ROW.findall(match[0])]
        if (cells := _square(rows)) is not None:
            yield cells, match.start(), match.end()


def _line_grids(text: str) -> Iterator[tuple[Cells, int, int]]:
    """Consecutive lines of cells. Rules and empty lines between bands of boxes are allowed; else an empty line separates two grids."""
    for block in _blocks(list(ROW.finditer(text)), text, lambda between: RULE.fullmatch(between.replace("\n", "")) is not None):
        whole = list(_of_block(block))
        yield from whole or [grid for part in _blocks(block, text, lambda between: between.count("\n") < 2) for grid in _of_block(part)]


def _blocks(lines: Sequence[re.Match[str]], text: str, joined: Callable[[str], bool]) -> list[list[re.Match[str]]]:
    """Lines of cells, cut where what stands between two of them does not join them."""
    blocks = list[list[re.Match[str]]]()
    for line in lines:
        if blocks and joined(text[blocks[-1][-1].end() : line.start()]):
            blocks[-1].append(line)
        else:
            blocks.append([line])
    return blocks


def _of_block(block: list[re.Match[str]]) -> Iterator[tuple[Cells, int, int]]:
    """The grid of all lines, or of those that are no rules."""
    for lines in (block, [line for line in block if re.search(r"\d", line[1]) or " " in line[1].strip()]):
        if len(lines) not in BOXES:
            continue
        rows = [[_cell(cell) for cell in ROW_CELL.findall(line[1])] for line in lines]
        if (cells := _square(rows)) is not None:
            yield cells, lines[0].start(), lines[-1].end()
            return


def _strings(text: str) -> Iterator[tuple[Cells, int, int]]:
    if STRING_CELLS.search(text) is None:
        return
    for match in STRING.finditer(text):
        yield tuple(cell or 0 for cell in map(_cell, match[0])), match.start(), match.end()


def _square(rows: Sequence[Sequence[int | None]]) -> Cells | None:
    size = len(rows)
    if size not in BOXES or any(len(row) != size or not all(cell is not None and cell <= size for cell in row) for row in rows):
        return None
    return tuple(cell or 0 for row in rows for cell in row)


@lru_cache(maxsize=1024)
def _cell(text: str) -> int | None:
    """0 for an empty cell; None for what is no cell."""
    inside = text.strip("\"' ")
    if inside in ("", "-", ".", "_", "null", "None"):
        return 0
    return int(inside) if inside.isdecimal() and inside.isascii() else None
