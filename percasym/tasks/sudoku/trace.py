"""Solving a Sudoku by hand, step by step: the trace that demonstrations are written from.

Open cells are visited in reading order, pass after pass; a cell with one candidate is set. When a whole pass sets
nothing, a digit with one place in a unit is set; when there is none, a digit is tried, and undone with all that followed
once a cell has no candidate or a digit no place. Nothing is looked up in the solution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from percasym.tasks.sudoku.grid import Cells, Shape, shape_of

Digits = tuple[int, ...]
"""Digits in ascending order."""

UnitKind = Literal["row", "column", "box"]
UNIT_KINDS: tuple[UnitKind, UnitKind, UnitKind] = ("row", "column", "box")


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """An open cell is looked at: set when it has one candidate, a dead end when it has none, else left for later."""

    cell: int
    seen: tuple[Digits, Digits, Digits]
    """Digits in its row, its column and its box."""
    refuted: Digits
    """Digits that were tried in this cell and failed."""
    allowed: Digits
    """What its row, its column and the refuted digits leave."""
    guess: int | None
    """An allowed digit that is tried before the box is checked; None when nothing is tried."""
    candidates: Digits
    """The allowed digits that its box lacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A digit is looked for in a unit: set when one open cell takes it, a dead end when none does."""

    kind: UnitKind
    unit: int
    digit: int
    blocked: tuple[tuple[int, UnitKind | Literal["refuted"]], ...]
    """The other open cells of the unit, each with the first reason why it cannot take the digit."""
    cell: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppose:
    """No single is left: a digit is tried in the first of the cells with fewest candidates."""

    cell: int
    candidates: Digits
    digit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """After a dead end: the last tried digit, and all that was set after it, is taken back; it is refuted in that cell."""

    cell: int
    digit: int


Step = Visit | Place | Suppose | Undo


class Board:
    """A grid in the making, with the digits refuted in each cell."""

    def __init__(self, shape: Shape, digits: list[int], refuted: list[frozenset[int]]) -> None:
        self.shape, self.digits, self.refuted = shape, digits, refuted
        self.units: dict[UnitKind, tuple[Cells, ...]] = {"row": shape.rows, "column": shape.columns, "box": shape.boxes}

    def copy(self) -> Board:
        """A board that can go its own way."""
        return Board(self.shape, list(self.digits), list(self.refuted))

    def open_cells(self) -> list[int]:
        """Empty cells in reading order."""
        return [cell for cell, digit in enumerate(self.digits) if not digit]

    def digits_in(self, unit: Cells) -> Digits:
        """The digits that stand in a unit."""
        return tuple(sorted(self.digits[cell] for cell in unit if self.digits[cell]))

    def seen(self, cell: int) -> tuple[Digits, Digits, Digits]:
        """The digits in the row, the column and the box of a cell."""
        row, column, box = self.shape.home[cell]
        return self.digits_in(self.shape.rows[row]), self.digits_in(self.shape.columns[column]), self.digits_in(self.shape.boxes[box])

    def candidates(self, cell: int) -> Digits:
        """What an open cell may still take."""
        taken = self.refuted[cell].union(*self.seen(cell))
        return tuple(digit for digit in range(1, self.shape.size + 1) if digit not in taken)

    def obstacle(self, cell: int, digit: int) -> UnitKind | Literal["refuted"] | None:
        """The first reason why an open cell cannot take a digit; None when it can."""
        for kind, digits in zip(UNIT_KINDS, self.seen(cell), strict=True):
            if digit in digits:
                return kind
        return "refuted" if digit in self.refuted[cell] else None


def solve_aloud(cells: Cells, size: int, rng: Random, *, reflect_frac: float) -> Iterator[Step]:
    """Every step from the givens to a full grid; `rng` chooses the tried digits and, for the share `reflect_frac`, the guesses.

    Raises ValueError when the givens have no solution.
    """
    board = Board(shape_of(size), list(cells), [frozenset()] * len(cells))
    suppositions: list[tuple[Suppose, Board]] = []  # Each with the board before it.
    while board.open_cells():
        step: Step | None = None
        progress = False
        for cell in board.open_cells():
            yield (step := _visit(board, cell, rng, reflect_frac))
            if not step.candidates:
                break
            if len(step.candidates) == 1:
                board.digits[cell] = step.candidates[0]
                progress = True
        else:
            if progress:
                continue
            step = _place(board)
            if step is None:
                step = _suppose(board, rng)
                suppositions.append((step, board.copy()))
            yield step
            if step.cell is not None:
                board.digits[step.cell] = step.digit
                continue
        if not suppositions:
            raise ValueError(f"The givens {cells} have no solution, so there is no demonstration of one.")
        tried, board = suppositions.pop()
        board.refuted[tried.cell] |= {tried.digit}
        yield Undo(cell=tried.cell, digit=tried.digit)


def _visit(board: Board, cell: int, rng: Random, reflect_frac: float) -> Visit:
    row, column, box = board.seen(cell)
    refuted = tuple(sorted(board.refuted[cell]))
    ruled_out = {*row, *column, *refuted}
    allowed = tuple(digit for digit in range(1, board.shape.size + 1) if digit not in ruled_out)
    candidates = tuple(digit for digit in allowed if digit not in box)
    misleading = 1 < len(allowed) > len(candidates)
    guess = rng.choice(allowed) if misleading and rng.random() < reflect_frac else None
    return Visit(cell=cell, seen=(row, column, box), refuted=refuted, allowed=allowed, guess=guess, candidates=candidates)


def _place(board: Board) -> Place | None:
    """The first digit, in order of units and digits, that has at most one place."""
    for kind, units in board.units.items():
        for unit, members in enumerate(units):
            there = board.digits_in(members)
            for digit in range(1, board.shape.size + 1):
                if digit in there:
                    continue
                obstacles = [(cell, board.obstacle(cell, digit)) for cell in members if not board.digits[cell]]
                places = [cell for cell, obstacle in obstacles if obstacle is None]
                if len(places) <= 1:
                    blocked = tuple((cell, obstacle) for cell, obstacle in obstacles if obstacle is not None)
                    return Place(kind=kind, unit=unit, digit=digit, blocked=blocked, cell=places[0] if places else None)
    return None


def _suppose(board: Board, rng: Random) -> Suppose:
    cell = min(board.open_cells(), key=lambda cell: len(board.candidates(cell)))
    candidates = board.candidates(cell)
    return Suppose(cell=cell, candidates=candidates, digit=rng.choice(candidates))
