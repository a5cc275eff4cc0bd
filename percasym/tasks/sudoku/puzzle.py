"""Generate Sudokus with exactly one solution.

A random full grid is generated, then givens are removed in random order while the puzzle stays uniquely solvable with the chosen
techniques. A given that is a single of the remaining grid is removed without a search.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate, islice, permutations, product
from operator import and_
from random import Random
from typing import Literal

from percasym.tasks.base import draw_until_in_split
from percasym.tasks.sudoku.grid import Cells, shape_of, write
from percasym.tasks.sudoku.solver import Rules, bits, rules_of
from percasym.types import SampleKey

Techniques = Literal["naked", "hidden", "any"]
"""The techniques a puzzle may need: naked singles (a cell with one candidate), also hidden singles (a digit with one place in a row,
column or box), or any, including backtracking (our choice of levels)."""

KINDS_USED: dict[Techniques, int] = {"naked": 1, "hidden": 4, "any": 4}
"""Number of kinds in `Rules.kinds` whose singles a technique uses."""

FEWEST: dict[int, dict[Techniques, int]] = {
    4: {"naked": 4, "hidden": 4, "any": 4},
    6: {"naked": 9, "hidden": 9, "any": 9},
    9: {"naked": 24, "hidden": 22, "any": 22},
}
"""Fewest givens that at least one grid in forty can be reduced to (measured on 400 to 2,000 grids of each kind)."""

MAX_GRIDS = 1_000
"""Bound on retries for one puzzle: at one grid in forty, the chance to reach it is 1e-11."""

NUM_TWINS = 32
"""Symmetric variants of a puzzle to try for a split before a new one is generated: each costs 1 % of a new puzzle."""


def puzzle_of(key: SampleKey, *, size: int, givens: tuple[int, int], techniques: Techniques) -> str:
    """The percept of a key: a puzzle in the key's split with exactly one solution."""
    puzzles = _proposals(key.rng("puzzle"), size, givens, techniques)
    return draw_until_in_split(key, lambda _: next(puzzles), canonical)


def canonical(percept: str) -> str:
    """The percept with its digits renamed by first appearance, so that puzzles equal up to renaming are one puzzle.

    >>> canonical("4021\\n0040\\n0300\\n2000") == canonical("3014\\n0030\\n0200\\n1000") == "1023\\n0010\\n0400\\n2000"
    True
    """
    digits = [digit for digit in dict.fromkeys(percept) if digit not in "0\n"]
    return percept.translate({ord(digit): str(name) for name, digit in enumerate(digits, start=1)})


def full_grid(rules: Rules, rng: Random) -> int | None:
    """A random full grid as placed candidates; None when the boxes filled first cannot be completed."""
    shape = shape_of(rules.size)
    num_stacks = rules.size // shape.box_columns
    placed = 0
    for diagonal in range(min(rules.size // shape.box_rows, num_stacks)):  # These boxes share no row or column.
        digits = rng.sample(range(rules.size), rules.size)
        for cell, digit in zip(shape.boxes[diagonal * num_stacks + diagonal], digits, strict=True):
            placed |= 1 << digit * rules.area + cell
    return next(rules.solutions(rules.candidates(placed), placed, rng), None)


def dig(rules: Rules, full: int, *, num_givens: int, techniques: Techniques, rng: Random) -> int:
    """Remove givens from a full grid in random order down to `num_givens`, or until no other can be removed."""
    order = list(bits(full))
    rng.shuffle(order)
    unvisited = list(accumulate((rules.after[bit] for bit in reversed(order)), and_, initial=rules.everything))
    kept = rules.everything  # Candidates left by the visited givens that could not be removed.
    for bit in order:
        if full.bit_count() == num_givens:
            break
        unvisited.pop()
        if _removable(rules, unvisited[-1] & kept, full ^ 1 << bit, bit, techniques):
            full ^= 1 << bit
        else:
            kept &= rules.after[bit]
    return full


def is_solved_by(cells: Cells, size: int, techniques: Techniques) -> bool:
    """Whether the grid has exactly one solution that these techniques find."""
    rules = rules_of(size)
    placed = rules.placed(cells)
    left = rules.candidates(placed)
    if techniques == "any":
        return len(list(islice(rules.solutions(left, placed), 2))) == 1
    return rules.propagate(left, placed, num_kinds=KINDS_USED[techniques])[1].bit_count() == rules.area


def twin(cells: Cells, size: int, rng: Random) -> Cells:
    """A symmetric variant: bands, stacks, rows and columns are permuted and, if boxes are square, the grid may be transposed."""
    shape = shape_of(size)
    rows, columns = rng.choice(_orders(size, shape.box_rows)), rng.choice(_orders(size, shape.box_columns))
    if shape.box_rows == shape.box_columns and rng.random() < 0.5:
        return tuple(cells[row * size + column] for column in columns for row in rows)
    return tuple(cells[row * size + column] for row in rows for column in columns)


def _removable(rules: Rules, left: int, others: int, bit: int, techniques: Techniques) -> bool:
    """Whether the given `bit` is implied by the `others`, which leave the candidates `left`."""
    num_kinds = KINDS_USED[techniques]
    if any(left & rivals == 1 << bit for rivals in rules.rivals[bit][:num_kinds]):
        return True
    if techniques == "any":  # The puzzle is unique with this given, so any other solution lacks it.
        return next(rules.solutions(left & ~(1 << bit), others), None) is None
    return rules.propagate(left, others, num_kinds=num_kinds)[1].bit_count() == rules.area


def _draw(rules: Rules, givens: tuple[int, int], techniques: Techniques, rng: Random) -> Cells:
    num_givens = rng.randint(*givens)
    for _ in range(MAX_GRIDS):
        full = full_grid(rules, rng)
        if full is None:
            continue
        puzzle = dig(rules, full, num_givens=num_givens, techniques=techniques, rng=rng)
        if puzzle.bit_count() == num_givens:
            return rules.cells(puzzle)
    raise ValueError(f"None of {MAX_GRIDS} grids of task.size={rules.size} could be dug to {num_givens} givens. Raise task.givens.")


def _proposals(rng: Random, size: int, givens: tuple[int, int], techniques: Techniques) -> Iterator[str]:
    rules = rules_of(size)
    while True:
        cells = _draw(rules, givens, techniques, rng)
        yield write(cells, size)
        for _ in range(NUM_TWINS):
            yield write(twin(cells, size, rng), size)


@lru_cache
def _orders(size: int, group: int) -> tuple[Cells, ...]:
    """All permutations of the lines 0 to size - 1 that keep each group together (1,296 for size 9)."""
    groups = [tuple(permutations(range(start, start + group))) for start in range(0, size, group)]
    return tuple(sum(lines, ()) for order in permutations(groups) for lines in product(*order))
