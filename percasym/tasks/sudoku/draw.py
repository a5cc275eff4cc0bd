"""The picture of a Sudoku: thin lines between cells, thick ones around boxes, a glyph in each filled cell."""

from __future__ import annotations

from random import Random

from percasym.tasks.canvas import Canvas, Look
from percasym.tasks.sudoku.grid import Cells, shape_of

THIN, THICK = 1 / 16, 1 / 8  # Of a cell: one and two pixels where a cell has sixteen.


def draw(cells: Cells, size: int, look: Look, rng: Random) -> bytes:
    """The grid as PNG bytes, filling the picture: a cell is `look.image_px / size` pixels wide.

    Every cell takes the same random numbers whether filled or empty, so two grids under one `rng` state
    differ only in the cells in which they differ.
    """
    shape = shape_of(size)
    canvas = Canvas(look, rng)
    cell = look.image_px / size
    for line in range(size + 1):
        for box, is_row in ((shape.box_rows, True), (shape.box_columns, False)):
            width = cell * (THICK if line % box == 0 else THIN)
            at = min(max(line * cell, width / 2), look.image_px - width / 2)  # The outer border lies inside the picture.
            start, end = ((0, at), (look.image_px, at)) if is_row else ((at, 0), (at, look.image_px))
            canvas.line(start, end, width)
    for index, digit in enumerate(cells):
        row, column = divmod(index, size)
        centre = canvas.moved(((column + 0.5) * cell, (row + 0.5) * cell), cell)
        canvas.glyph(str(digit) if digit else " ", centre, cell)
    return canvas.png()
