"""A demonstration's reasoning: the steps of a trace in words.

Cells are `r1c2` (row 1, column 2), digits stand alone between spaces, and every clause follows from p* and the clauses
before it by a look-up. The words of a step grow with the verbosity; what is said is true at every verbosity:

    0  results only             r1c2 3.
    1  the digits seen          r1c2: row 1 4, column 2. Box 1 4. Set 3.
    2  every look at a cell     r1c2: row has 1, column has 2, leaves 3 4. Box has 1 2. Candidates 3 4. Later.
       and a check of the rows  Check rows: 1 3 2 4, 2 4 1 3, 3 1 4 2, 4 2 3 1. All differ.
    3  and of the columns       Check columns: 1 2 3 4, 3 4 1 2, 2 1 4 3, 4 3 2 1. All differ.
    4  of the boxes,            Check boxes: 1 3 2 4, 2 4 1 3, 3 1 4 2, 4 2 3 1. All differ.
       and of the givens        Check givens: 3, 2 4, none, 4 1. All kept.

With `restate`, the grid is written anew, as p* is, whenever a digit is set or taken back: a small model then looks
up what stands in a row without searching the whole text for what was set.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random

from percasym.tasks.sudoku.grid import Cells, shape_of, write
from percasym.tasks.sudoku.trace import UNIT_KINDS, Digits, Place, Step, Suppose, Undo, Visit, solve_aloud

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
"""Other ways to say the same, for demonstrations with `variety_frac`."""


def explain(cells: Cells, solution: Cells, size: int, rng: Random, *, verbosity: int, reflect_frac: float, restate: bool = False) -> str:
    """The reasoning of a demonstration, from the first look at a cell to the last check."""
    lines = []
    for step, grid in with_grids(cells, solve_aloud(cells, size, rng, reflect_frac=reflect_frac)):
        lines.append(in_words(step, size, verbosity))
        if restate and grid is not None:
            lines.append(write(grid, size))
    shape = shape_of(size)
    checks = (("rows", shape.rows), ("columns", shape.columns), ("boxes", shape.boxes))
    for name, units in checks[: max(0, verbosity - 1)]:
        read = ", ".join(_digits(solution[cell] for cell in unit) for unit in units)
        lines.append(f"Check {name}: {read}. All differ.")
    if verbosity == MAX_VERBOSITY:
        given = ", ".join(_digits(cells[cell] for cell in row if cells[cell]) for row in shape.rows)
        lines.append(f"Check givens: {given}. All kept.")
    return "".join(f"\n{line}" for line in lines if line) + "\n"


def with_grids(cells: Cells, steps: Iterable[Step]) -> Iterator[tuple[Step, Cells | None]]:
    """Each step with the grid after it; None when the step changes nothing."""
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


def in_words(step: Step, size: int, verbosity: int) -> str:
    """One step as one line; empty when the verbosity passes over it."""
    match step:
        case Visit():
            return _visit(step, size, verbosity)
        case Place():
            return _place(step, size, verbosity)
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


def _visit(step: Visit, size: int, verbosity: int) -> str:
    at = _name(step.cell, size)
    if len(step.candidates) > 1 and verbosity < 2:
        return ""
    if verbosity == 0:
        return f"{at} {step.candidates[0]}." if step.candidates else f"{at} fails."
    has = " has" if verbosity >= 2 else ""
    row, column, box = (f"{kind}{has} {_digits(digits)}" for kind, digits in zip(UNIT_KINDS, step.seen, strict=True))
    refuted = f", not {_digits(step.refuted)}" if step.refuted else ""
    leaves = f", leaves {_digits(step.allowed)}" if verbosity >= 2 else ""
    if step.guess is None:
        check = box.capitalize()
    elif step.guess in step.seen[2]:
        check = f"Try {step.guess}. Check {box}: {step.guess} is there. Undo"
    else:
        check = f"Try {step.guess}. Check {box}: fine"
    candidates = f" Candidates {_digits(step.candidates)}." if verbosity >= 2 else ""
    verdict = {0: "Dead end.", 1: f"Set {_digits(step.candidates)}."}.get(len(step.candidates), "Later.")
    return f"{at}: {row}, {column}{refuted}{leaves}. {check}.{candidates} {verdict}"


def _place(step: Place, size: int, verbosity: int) -> str:
    if verbosity == 0:
        return f"{_name(step.cell, size)} {step.digit}." if step.cell is not None else f"{step.kind} {step.unit + 1} fails."
    reasons = ""
    if verbosity >= 2:
        said = {kind: f"{kind} has {step.digit}" for kind in UNIT_KINDS} | {"refuted": f"not {step.digit}"}
        reasons = "".join(f"{_name(cell, size)} {said[reason]}, " for cell, reason in step.blocked)
    verdict = f"only {_name(step.cell, size)}. Set {step.digit}." if step.cell is not None else "no cell. Dead end."
    return f"{step.kind} {step.unit + 1} needs {step.digit}: {reasons}{verdict}"


def _name(cell: int, size: int) -> str:
    return f"r{cell // size + 1}c{cell % size + 1}"


def _digits(digits: Digits | Iterable[int]) -> str:
    return " ".join(map(str, digits)) or "none"
