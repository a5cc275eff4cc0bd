"""Sudoku as a task: p* is the partially filled grid, the answer the full one.

python train.py task=sudoku task.size=6 task.givens=[14,18]
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import ClassVar, Literal

from percasym.config.schema import fraction, one_of
from percasym.spans.grammar import Grammar
from percasym.tasks.base import SyntheticTask
from percasym.tasks.canvas import Canvas, Look
from percasym.tasks.sudoku.explain import MAX_VERBOSITY, WORDINGS, explain
from percasym.tasks.sudoku.grid import BOXES, Cells, has_clash, read, shape_of, write
from percasym.tasks.sudoku.puzzle import FEWEST, Techniques, canonical, is_solved_by, puzzle_of
from percasym.tasks.sudoku.solver import solve
from percasym.tasks.wording import vary_wording
from percasym.types import Prompt, Sample, SampleKey

MIN_CELL_PX = 8  # Below this the digits 6, 8 and 9 cannot be distinguished.
THIN, THICK = 1 / 16, 1 / 8  # Line widths as fractions of a cell: 1 and 2 pixels for a cell of 16.


@dataclass(frozen=True, slots=True, kw_only=True)
class Sudoku(SyntheticTask):
    """Sudokus with exactly one solution; a percept is `size` lines of `size` digits, 0 for an empty cell."""

    name: ClassVar[str] = "sudoku"

    size: int = 4
    """Side of the grid: 4, 6 (boxes of 2 rows and 3 columns) or 9."""
    givens: tuple[int, int] = (7, 9)
    """Fewest and most filled cells; each number in between is equally likely."""
    techniques: Techniques = "naked"
    """The techniques that a puzzle may need, at most."""
    verbosity: int = 2
    """Detail of the demonstrations, 0 to 4: perception is 16 % down to 2.5 % of their tokens at size 4."""
    reflect_frac: float = 0.25
    """Share of ambiguous cells (row and column alone leave wrong digits) in which a digit is tried before the box is checked."""
    terse_frac: float = 0.0
    """Share of the demonstrations with results only (verbosity 0, no restated grid), as in data from several sources:
    a model trained on both forms can produce either, and RL can select between them."""
    restate: bool = False
    """Write the grid again whenever it changes: a scratchpad for small models, `size`^2 digits each time."""
    variety_frac: float = 0.0
    """Share of the fixed phrases of a demonstration whose wording is drawn at random (see `WORDINGS`)."""
    question: Literal["brief", "full"] = "brief"
    """`brief` for a model trained on the response format; `full` states the format, for any model."""
    look: Look = field(default_factory=Look)
    """How the picture is drawn."""

    def __post_init__(self) -> None:
        if self.size not in BOXES:
            raise ValueError(f"task.size must be one of {', '.join(map(str, BOXES))}, got {self.size}.")
        one_of("task", Techniques, techniques=self.techniques)
        low, high = self.givens
        fewest, most = FEWEST[self.size][self.techniques], self.size**2 - 1
        if not fewest <= low <= high <= most:
            raise ValueError(
                f"task.givens must be [low, high] with {fewest} <= low <= high <= {most} "
                f"at task.size={self.size} and task.techniques={self.techniques}, got [{low}, {high}]."
            )
        if not 0 <= self.verbosity <= MAX_VERBOSITY:
            raise ValueError(f"task.verbosity must lie between 0 and {MAX_VERBOSITY}, got {self.verbosity}.")
        fraction("task", reflect_frac=self.reflect_frac, variety_frac=self.variety_frac, terse_frac=self.terse_frac)
        if self.question not in ("brief", "full"):
            raise ValueError(f"task.question must be brief or full, got {self.question!r}.")
        if self.look.image_px < MIN_CELL_PX * self.size:
            raise ValueError(
                f"task.look.image_px must be at least {MIN_CELL_PX * self.size} at task.size={self.size} "
                f"({MIN_CELL_PX} pixels a cell), got {self.look.image_px}."
            )

    def truth(self, key: SampleKey) -> str:
        """The percept p* of a key, without picture and demonstration."""
        return puzzle_of(key, size=self.size, givens=self.givens, techniques=self.techniques)

    def sample(self, key: SampleKey) -> Sample:
        """The sample of a key: same key, same bytes."""
        truth = self.truth(key)
        givens = read(truth, self.size)
        assert givens, f"{key} gave {truth!r}, which is no grid"
        full = solve(givens, self.size)
        assert full, f"{key} gave {truth!r}, which has no solution"
        terse = key.rng("terse").random() < self.terse_frac
        reasoning = explain(
            givens,
            full,
            self.size,
            key.rng("thoughts"),
            verbosity=0 if terse else self.verbosity,
            reflect_frac=self.reflect_frac,
            restate=self.restate and not terse,
        )
        reasoning = vary_wording(reasoning, WORDINGS, key.rng("words"), self.variety_frac)
        solution = write(full, self.size)
        return Sample(
            prompt=Prompt(key=key, image=self.draw(truth, key), question=self.question_text()),
            truth=truth,
            solution=solution,
            demonstration=Grammar().demonstrate(truth, reasoning, solution),
        )

    def question_text(self) -> str:
        """The question; it does not depend on whether the grid is given as a picture or as text."""
        if self.question == "brief":
            return "Solve the Sudoku."
        size, shape, tags = self.size, shape_of(self.size), Grammar()
        return (
            f"This is a {size}x{size} Sudoku. Its boxes have {shape.box_rows} rows and {shape.box_columns} columns.\n"
            f"First transcribe it: write {tags.open_perception}, then its {size} rows from top to bottom, one a line, "
            f"each as {size} digits without spaces and with 0 for an empty cell, then {tags.close_perception}.\n"
            f"Then reason step by step: fill the empty cells so that every row, every column and every box holds "
            f"each digit from 1 to {size} exactly once.\n"
            f"Last, write {tags.open_answer}, the full grid in the same form, and {tags.close_answer}. "
            "Write each tag exactly once, and nothing before the first or after the last."
        )

    def parse(self, text: str) -> str | None:
        """The grid without surrounding white space; None unless it is exactly `size` lines of `size` digits."""
        cells = read(text, self.size)
        return None if cells is None else write(cells, self.size)

    def agreement(self, truth: str, stated: str) -> float:
        """Cell accuracy; 0 when one of the two is not a grid of this size."""
        one, other = read(truth, self.size), read(stated, self.size)
        if one is None or other is None:
            return 0.0
        return sum(a == b for a, b in zip(one, other, strict=True)) / self.size**2

    def verify(self, percept: str, answer: str) -> bool:
        """Whether `answer` is a full valid grid that keeps every given of `percept`."""
        givens, full = read(percept, self.size), read(answer, self.size)
        if givens is None or full is None or 0 in full or has_clash(full, self.size):
            return False
        return all(given in (0, digit) for given, digit in zip(givens, full, strict=True))

    def draw(self, percept: str, key: SampleKey) -> bytes:
        """The picture of a canonical percept as PNG bytes; the key decides its appearance only.

        Raises ValueError for a text that is no percept.
        """
        cells = read(percept, self.size)
        if cells is None:
            raise ValueError(f"Only {self.size} lines of {self.size} digits can be drawn, got {percept!r}. Parse the percept first.")
        return draw_grid_png(cells, self.size, self.look, key.rng("look"))

    def solve(self, percept: str) -> str | None:
        """A solution of the percept (unique for p* of a sample), or None if it has none."""
        cells = read(percept, self.size)
        full = None if cells is None else solve(cells, self.size)
        return None if full is None else write(full, self.size)

    def valid(self, percept: str) -> bool:
        """Whether the percept has an allowed number of givens and exactly one solution that the techniques find."""
        cells = read(percept, self.size)
        if cells is None or not self.givens[0] <= sum(map(bool, cells)) <= self.givens[1]:
            return False
        return is_solved_by(cells, self.size, self.techniques)

    def canonical(self, percept: str) -> str:
        """The percept with its digits renamed by first appearance: puzzles equal up to renaming are one puzzle."""
        return canonical(percept)


def draw_grid_png(cells: Cells, size: int, look: Look, rng: Random) -> bytes:
    """The grid as PNG bytes: thin lines between cells, thick lines around boxes, a glyph in each filled cell.

    Each cell consumes the same random numbers whether filled or empty, so the pictures of two grids under one `rng` state differ only in
    the cells in which the grids differ.
    """
    shape = shape_of(size)
    canvas = Canvas(look, rng)
    cell = look.image_px / size
    for line in range(size + 1):
        for box, is_row in ((shape.box_rows, True), (shape.box_columns, False)):
            width = cell * (THICK if line % box == 0 else THIN)
            at = min(max(line * cell, width / 2), look.image_px - width / 2)  # Keeps the outer border inside the picture.
            start, end = ((0, at), (look.image_px, at)) if is_row else ((at, 0), (at, look.image_px))
            canvas.line(start, end, width)
    for index, digit in enumerate(cells):
        row, column = divmod(index, size)
        centre = canvas.moved(((column + 0.5) * cell, (row + 0.5) * cell), cell)
        canvas.glyph(str(digit) if digit else " ", centre, cell)
    return canvas.png()
