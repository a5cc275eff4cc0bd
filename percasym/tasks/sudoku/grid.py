"""Rows, columns and boxes of a Sudoku of each size, and the text form of a grid.

A grid is a tuple of cells in reading order; a percept is its rows as lines of digits, with 0 for an empty cell.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

BOXES: dict[int, tuple[int, int]] = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
"""Number of rows and columns of a box, for each size."""

Cells = tuple[int, ...]
"""size * size digits in reading order; 0 for an empty cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The units (rows, columns, boxes) of a size, each a tuple of cells; cells are numbered in reading order from 0."""

    size: int
    box_rows: int
    box_columns: int
    rows: tuple[Cells, ...]
    columns: tuple[Cells, ...]
    boxes: tuple[Cells, ...]
    """In reading order of their upper left cells."""
    home: tuple[tuple[int, int, int], ...]
    """Row, column and box of each cell, counted from 0."""
    pattern: re.Pattern[str]
    """Matches the text form of a grid; cells may be empty."""


@lru_cache
def shape_of(size: int) -> Shape:
    """The shape of a size in `BOXES`."""
    box_rows, box_columns = BOXES[size]
    cells = range(size * size)
    home = tuple((cell // size, cell % size, cell // size // box_rows * box_rows + cell % size // box_columns) for cell in cells)
    rows, columns, boxes = (tuple(tuple(c for c in cells if home[c][kind] == unit) for unit in range(size)) for kind in range(3))
    pattern = re.compile(rf"[0-{size}]{{{size}}}(?:\n[0-{size}]{{{size}}}){{{size - 1}}}")
    return Shape(size=size, box_rows=box_rows, box_columns=box_columns, rows=rows, columns=columns, boxes=boxes, home=home, pattern=pattern)


def write(cells: Cells, size: int) -> str:
    """The text form of a grid.

    >>> write((1, 0, 3, 4, 0, 0, 2, 1, 3, 4, 0, 0, 0, 0, 0, 2), 4)
    '1034\\n0021\\n3400\\n0002'
    """
    digits = "".join(map(str, cells))
    return "\n".join(digits[start : start + size] for start in range(0, size * size, size))


def read(text: str, size: int) -> Cells | None:
    """Parse exactly `size` lines of `size` ASCII digits up to `size`; None for any other text.

    White space around the grid is ignored; inside it only single line feeds are allowed.

    >>> read("1034\\n0021\\n3400\\n0005", 4) is None
    True
    """
    grid = text.strip()
    if not shape_of(size).pattern.fullmatch(grid):
        return None
    return tuple(int(digit) for digit in grid if digit != "\n")


def has_clash(cells: Cells, size: int) -> bool:
    """Whether a row, column or box contains a digit twice."""
    shape = shape_of(size)
    for unit in (*shape.rows, *shape.columns, *shape.boxes):
        digits = [cells[cell] for cell in unit if cells[cell]]
        if len(set(digits)) < len(digits):
            return True
    return False
