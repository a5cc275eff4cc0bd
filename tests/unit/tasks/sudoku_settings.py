"""Settings of Sudoku that all its tests share, and its boxes written down by hand."""

from __future__ import annotations

import pytest

from percasym.tasks.canvas import Look
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import SampleKey

BOX = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
LOOK = Look(image_px=144)
SETTINGS = [
    *[Sudoku(size=4, givens=(4, 9), techniques=techniques, look=LOOK) for techniques in ("naked", "hidden", "any")],
    *[Sudoku(size=6, givens=(9, 16), techniques=techniques, look=LOOK) for techniques in ("naked", "hidden", "any")],
    *[Sudoku(size=9, givens=(25, 36), techniques=techniques, look=LOOK) for techniques in ("naked", "hidden", "any")],
]
NAMES = [f"{task.size}-{task.techniques}" for task in SETTINGS]
each_setting = pytest.mark.parametrize("task", SETTINGS, ids=NAMES)


def keys(number: int, split: str = "test", seed: int = 0) -> list[SampleKey]:
    return [SampleKey(task="sudoku", split=split, seed=seed, index=index) for index in range(number)]


def box_of(size: int, row: int, column: int) -> int:
    height, width = BOX[size]
    return row // height * (size // width) + column // width
