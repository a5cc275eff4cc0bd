"""The reasoning of a Sudoku demonstration: the steps of a solution by hand, and their text.

Open cells are visited in reading order, pass after pass; a cell with one candidate is set. If a whole pass sets nothing, a digit with one
place in a unit is set. If there is none either, a digit is tried, and undone with everything after it at a contradiction. The steps never
use the solution.

Cells are written `r1c2` (row 1, column 2), digits are separated by spaces, and each clause follows from p* and the clauses before it by
a look-up. Verbosity sets the detail of a step; every statement is true at every verbosity:

    0  results only             r1c2 3.
    1  digits of the units      r1c2: row 1 4, column 2. Box 1 4. Set 3.
    2  every visit of a cell    r1c2: row has 1, column has 2, leaves 3 4. Box has 1 2. Candidates 3 4. Later.
       and a check of the rows  Check rows: 1 3 2 4, 2 4 1 3, 3 1 4 2, 4 2 3 1. All differ.
    3  and of the columns       Check columns: 1 2 3 4, 3 4 1 2, 2 1 4 3, 4 3 2 1. All differ.
    4  of the boxes             Check boxes: 1 3 2 4, 2 4 1 3, 3 1 4 2, 4 2 3 1. All differ.
       and of the givens        Check givens: 3, 2 4, none, 4 1. All kept.

With `restate`, the grid is written again, in the form of p*, after every change: a small model then reads a row from the last grid instead
of collecting it from the whole text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

from percasym.tasks.sudoku.grid import Cells, Shape, shape_of, write

Digits = tuple[int, ...]
"""Digits in ascending order."""

UnitKind = Literal["row", "column", "box"]
UNIT_KINDS: tuple[UnitKind, UnitKind, UnitKind] = ("row", "column", "box")

MAX_VERBOSITY = 4

WORDINGS = {
    "\nr": ("\nNext r", "\nNow r", "\nThen r", "\nLook at r", "\nTake r", "\nOn to r", "\nConsider r"),
    "row has ": ("row: ", "the row has ", "its row has ", "this row has ", "row holds ", "row contains ", "in the row "),
    "column has ": ("column: ", "the column has ", "its column has ", "this column has ", "column holds ", "column contains "),
    "leaves ": ("leaves only ", "which leaves ", "leaving ", "left ", "open ", "free ", "remaining "),
    "Box has ": ("Box: ", "The box has ", "Its box has ", "This box has ", "Box holds ", "Box contains ", "In the box "),
    "Candidates ": ("Candidates: ", "Options ", "Options: ", "Possible ", "Possible: ", "Could be ", "It can be "),
    "Set ": ("Set: ", "So ", "Write ", "Put ", "Fill in ", "It must be ", "It is "),
    "Later.": ("Open.", "Left open.", "Skip.", "Not yet.", "Unclear.", "Come back.", "Move on."),
    "All differ.": ("All fine.", "All good.", "All distinct.", "All different.", "No repeats."),
}
"""Equivalent phrases, for demonstrations with `variety_frac`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """Visit an open cell: it is set if it has one candidate, a contradiction if it has none, and left open otherwise."""

    cell: int
    in_units: tuple[Digits, Digits, Digits]
    """Digits in its row, its column and its box."""
    refuted: Digits
    """Digits that were tried in this cell and led to a contradiction."""
    allowed: Digits
    """Digits that its row, its column and the refuted digits allow."""
    guess: int | None
    """An allowed digit that is tried before the box is checked; None without such a guess."""
    candidates: Digits
    """Allowed digits that are not in its box."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Search a unit for the place of a digit: it is set if one open cell allows it, a contradiction if none does."""

    kind: UnitKind
    unit: int
    digit: int
    blocked: tuple[tuple[int, UnitKind | Literal["refuted"]], ...]
    """The other open cells of the unit, each with the first reason that excludes the digit."""
    cell: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppose:
    """Without any single, try a digit in the first of the cells with the fewest candidates."""

    cell: int
    candidates: Digits
    digit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """At a contradiction, undo the last tried digit and everything set after it; the digit is refuted in that cell."""

    cell: int
    digit: int


Step = Visit | Place | Suppose | Undo


def explain(cells: Cells, solution: Cells, size: int, rng: Random, *, verbosity: int, reflect_frac: float, restate: bool = False) -> str:
    """The reasoning of a demonstration, from the first visit of a cell to the last check."""
    lines = []
    for step, grid in with_grids(cells, solution_steps(cells, size, rng, reflect_frac=reflect_frac)):
        lines.append(step_text(step, size, verbosity))
        if restate and grid is not None:
            lines.append(write(grid, size))
    shape = shape_of(size)
    checks = (("rows", shape.rows), ("columns", shape.columns), ("boxes", shape.boxes))
    for name, units in checks[: max(0, verbosity - 1)]:
        read = ", ".join(_digits(solution[cell] for cell in unit) for unit in units)
        lines.append(f"Check {name}: {read}. All differ.")
    if verbosity == MAX_VERBOSITY:
        givens = ", ".join(_digits(cells[cell] for cell in row if cells[cell]) for row in shape.rows)
        lines.append(f"Check givens: {givens}. All kept.")
    return "".join(f"\n{line}" for line in lines if line) + "\n"


def with_grids(cells: Cells, steps: Iterable[Step]) -> Iterator[tuple[Step, Cells | None]]:
    """Each step with the grid after it; None if the step does not change the grid."""
    grid, before = list(cells), []
    for step in steps:
        match step:
            case Visit(cell=cell, candidates=(digit,)) | Place(cell=int(cell), digit=digit):
                grid[cell] = digit
            case Suppose(cell=cell, digit=digit):
                before.append(list(grid))
                grid[cell] = digit
            case Undo():
                grid = before.pop()
            case _:
                yield step, None
                continue
        yield step, tuple(grid)


def step_text(step: Step, size: int, verbosity: int) -> str:
    """One step as one line; empty if the verbosity omits it."""
    match step:
        case Visit():
            return _visit_text(step, size, verbosity)
        case Place():
            return _place_text(step, size, verbosity)
        case Suppose(cell=cell, candidates=candidates, digit=digit):
            at = _name(cell, size)
            if verbosity == 0:
                return f"Try {at} {digit}."
            return f"No single is left. {at} has {_digits(candidates)}. Try {at} {digit}."
        case Undo(cell=cell, digit=digit):
            at = _name(cell, size)
            if verbosity == 0:
                return f"Undo {at}."
            return f"Undo {at} {digit} and all after it. {at} is not {digit}."


def _visit_text(step: Visit, size: int, verbosity: int) -> str:
    at = _name(step.cell, size)
    if len(step.candidates) > 1 and verbosity < 2:
        return ""
    if verbosity == 0:
        return f"{at} {step.candidates[0]}." if step.candidates else f"{at} fails."
    has = " has" if verbosity >= 2 else ""
    row, column, box = (f"{kind}{has} {_digits(digits)}" for kind, digits in zip(UNIT_KINDS, step.in_units, strict=True))
    refuted = f", not {_digits(step.refuted)}" if step.refuted else ""
    leaves = f", leaves {_digits(step.allowed)}" if verbosity >= 2 else ""
    if step.guess is None:
        check = box.capitalize()
    elif step.guess in step.in_units[2]:
        check = f"Try {step.guess}. Check {box}: {step.guess} is there. Undo"
    else:
        check = f"Try {step.guess}. Check {box}: fine"
    candidates = f" Candidates {_digits(step.candidates)}." if verbosity >= 2 else ""
    verdict = {0: "Dead end.", 1: f"Set {_digits(step.candidates)}."}.get(len(step.candidates), "Later.")
    return f"{at}: {row}, {column}{refuted}{leaves}. {check}.{candidates} {verdict}"


def _place_text(step: Place, size: int, verbosity: int) -> str:
    if verbosity == 0:
        return f"{_name(step.cell, size)} {step.digit}." if step.cell is not None else f"{step.kind} {step.unit + 1} fails."
    reasons = ""
    if verbosity >= 2:
        reason_text = {kind: f"{kind} has {step.digit}" for kind in UNIT_KINDS} | {"refuted": f"not {step.digit}"}
        reasons = "".join(f"{_name(cell, size)} {reason_text[reason]}, " for cell, reason in step.blocked)
    verdict = f"only {_name(step.cell, size)}. Set {step.digit}." if step.cell is not None else "no cell. Dead end."
    return f"{step.kind} {step.unit + 1} needs {step.digit}: {reasons}{verdict}"


def _name(cell: int, size: int) -> str:
    return f"r{cell // size + 1}c{cell % size + 1}"


def _digits(digits: Digits | Iterable[int]) -> str:
    return " ".join(map(str, digits)) or "none"


class _Board:
    """A partially filled grid, with the digits refuted in each cell."""

    def __init__(self, shape: Shape, digits: list[int], refuted: list[frozenset[int]]) -> None:
        self.shape, self.digits, self.refuted = shape, digits, refuted
        self.units: dict[UnitKind, tuple[Cells, ...]] = {"row": shape.rows, "column": shape.columns, "box": shape.boxes}

    def copy(self) -> _Board:
        """An independent copy."""
        return _Board(self.shape, list(self.digits), list(self.refuted))

    def open_cells(self) -> list[int]:
        """Empty cells in reading order."""
        return [cell for cell, digit in enumerate(self.digits) if not digit]

    def digits_in(self, unit: Cells) -> Digits:
        """The digits of a unit, sorted."""
        return tuple(sorted(self.digits[cell] for cell in unit if self.digits[cell]))

    def digits_around(self, cell: int) -> tuple[Digits, Digits, Digits]:
        """The digits in the row, column and box of a cell."""
        row, column, box = self.shape.home[cell]
        return self.digits_in(self.shape.rows[row]), self.digits_in(self.shape.columns[column]), self.digits_in(self.shape.boxes[box])

    def candidates(self, cell: int) -> Digits:
        """Digits that an open cell allows."""
        taken = self.refuted[cell].union(*self.digits_around(cell))
        return tuple(digit for digit in range(1, self.shape.size + 1) if digit not in taken)

    def obstacle(self, cell: int, digit: int) -> UnitKind | Literal["refuted"] | None:
        """The first reason that excludes a digit from an open cell; None if it is allowed."""
        for kind, digits in zip(UNIT_KINDS, self.digits_around(cell), strict=True):
            if digit in digits:
                return kind
        return "refuted" if digit in self.refuted[cell] else None


def solution_steps(cells: Cells, size: int, rng: Random, *, reflect_frac: float) -> Iterator[Step]:
    """The steps from the givens to a full grid; `rng` chooses the tried digits and, with probability `reflect_frac`, the guesses.

    Raises ValueError when the givens have no solution.
    """
    board = _Board(shape_of(size), list(cells), [frozenset()] * len(cells))
    suppositions: list[tuple[Suppose, _Board]] = []  # Each with the board before it.
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


def _visit(board: _Board, cell: int, rng: Random, reflect_frac: float) -> Visit:
    row, column, box = board.digits_around(cell)
    refuted = tuple(sorted(board.refuted[cell]))
    ruled_out = {*row, *column, *refuted}
    allowed = tuple(digit for digit in range(1, board.shape.size + 1) if digit not in ruled_out)
    candidates = tuple(digit for digit in allowed if digit not in box)
    ambiguous = 1 < len(allowed) > len(candidates)
    guess = rng.choice(allowed) if ambiguous and rng.random() < reflect_frac else None
    return Visit(cell=cell, in_units=(row, column, box), refuted=refuted, allowed=allowed, guess=guess, candidates=candidates)


def _place(board: _Board) -> Place | None:
    """The first digit, in order of units and digits, with at most one place."""
    for kind, units in board.units.items():
        for unit, members in enumerate(units):
            placed = board.digits_in(members)
            for digit in range(1, board.shape.size + 1):
                if digit in placed:
                    continue
                obstacles = [(cell, board.obstacle(cell, digit)) for cell in members if not board.digits[cell]]
                places = [cell for cell, obstacle in obstacles if obstacle is None]
                if len(places) <= 1:
                    blocked = tuple((cell, obstacle) for cell, obstacle in obstacles if obstacle is not None)
                    return Place(kind=kind, unit=unit, digit=digit, blocked=blocked, cell=places[0] if places else None)
    return None


def _suppose(board: _Board, rng: Random) -> Suppose:
    cell = min(board.open_cells(), key=lambda cell: len(board.candidates(cell)))
    candidates = board.candidates(cell)
    return Suppose(cell=cell, candidates=candidates, digit=rng.choice(candidates))
