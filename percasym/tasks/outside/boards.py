"""Sudokus of other benchmarks: grids in the notations of `percasym.tasks.released.grids`, and as all numbers in one row."""

from __future__ import annotations

import re
from dataclasses import dataclass

from percasym.tasks.outside.graphs import Ends, unboxed
from percasym.tasks.released.grids import EMPTY, SIZES, GridNotation, to_text

GRIDS = GridNotation()
LONGEST = 4096
"""Characters of a stated grid; 81 cells as indented JSON have 1,500."""
STAR = re.compile(r"(?<=[\s,\[|\"'])\*(?=[\s,\]|\"']|\Z)|\A\*")
"""An empty cell in VGRP-Bench."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardRule:
    """How a Sudoku and its solution are read and graded: the rules of the game, never the stored solution."""

    form: str = f"the grid as you read it, one line for each row, cells separated by spaces, {EMPTY} for an empty cell"

    def parse(self, text: str) -> str | None:
        """The canonical percept of a text that states one grid and nothing else."""
        if len(text) > LONGEST:
            return None
        text = STAR.sub(".", unboxed(text))
        return GRIDS.parse(text) or _in_one_row(text)

    def agreement(self, truth: str, stated: str) -> float:
        """Cell accuracy; 0 for grids of different sizes."""
        return GRIDS.agreement(truth, stated)

    def right(self, percept: str, answer: str, ends: Ends) -> bool:
        """Whether `answer` is a full valid grid that keeps the cells of `percept`."""
        full = self.parse(answer)
        return full is not None and GRIDS.verify(percept, full)

    def decided(self, percept: str, answer: str, ends: Ends) -> bool:
        """As `right`."""
        return self.right(percept, answer, ends)


def _in_one_row(text: str) -> str | None:
    """A grid that is given as all of its cells in one row.

    >>> _in_one_row("1 2 3 4 3 4 1 2 2 1 4 3 4 3 2 1").splitlines()[0]
    '1 2 3 4'
    """
    cells = text.replace(",", " ").split()
    size = SIZES.get(len(cells))
    if size is None or not all(re.fullmatch("[0-9.-]", cell) for cell in cells):
        return None
    numbers = tuple(int(cell) if cell.isdecimal() else 0 for cell in cells)
    return to_text(numbers) if max(numbers) <= size else None
