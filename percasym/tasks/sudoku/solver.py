"""An exact Sudoku solver that stores all candidates of a grid in one integer.

Sudoku is an exact cover problem: a candidate (a digit in a cell) satisfies four constraints (its cell is filled; its row, column and box
have its digit), and each constraint is satisfied by exactly one candidate. With one bit for each of the size ** 3 candidates, all
constraints of one kind are counted in parallel: shifting their k-th candidates onto each other and adding with carries gives "at least
one" and "at least two" for every constraint in a few wide operations. Unlike a search over cells, this finds all naked and hidden
singles and all contradictions of a 9x9 grid in about ten microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from percasym.tasks.sudoku.grid import Cells, shape_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """All constraints of one kind, each identified by its first candidate."""

    firsts: int
    """The first candidate of every constraint, as a bit set."""
    shifts: tuple[int, ...]
    """Offsets in bits from a constraint's first candidate to each of its candidates."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The constraints of one size as bit sets; bit `(digit - 1) * size ** 2 + cell` is a candidate."""

    size: int
    area: int
    everything: int
    """All candidates, those of the empty grid."""
    kinds: tuple[Kind, Kind, Kind, Kind]
    """Cells (a single candidate is a naked single), then rows, columns and boxes (a single candidate is a hidden single)."""
    after: tuple[int, ...]
    """For each candidate, the candidates that remain once it is placed, itself included."""
    rivals: tuple[tuple[int, int, int, int], ...]
    """For each candidate, all candidates of each of its four constraints, itself included."""

    def candidates(self, placed: int) -> int:
        """The candidates that remain once `placed` are placed; 0 when two of them conflict."""
        left = self.everything
        for bit in bits(placed):
            if not left >> bit & 1:
                return 0
            left &= self.after[bit]
        return left

    def placed(self, cells: Cells) -> int:
        """The givens of a grid as candidates."""
        return bit_set((digit - 1) * self.area + cell for cell, digit in enumerate(cells) if digit)

    def cells(self, placed: int) -> Cells:
        """The grid of placed candidates; inverse of `placed`."""
        grid = [0] * self.area
        for bit in bits(placed):
            grid[bit % self.area] = bit // self.area + 1
        return tuple(grid)

    def propagate(self, left: int, placed: int, *, num_kinds: int = 4) -> tuple[int, int]:
        """Place single candidates of the first `num_kinds` kinds of constraints until none is left.

        Returns the remaining and the placed candidates, or (0, 0) when a constraint has no candidate.
        """
        after = self.after
        progress = True
        while progress:
            progress = False
            for kind in self.kinds[:num_kinds]:
                firsts, shifts = kind.firsts, kind.shifts
                one = two = 0
                for shift in shifts:
                    here = left >> shift & firsts
                    two |= one & here
                    one |= here
                if one != firsts:
                    return 0, 0
                lone = one ^ two
                forced = 0
                for shift in shifts:
                    forced |= lone << shift
                fresh = forced & left & ~placed
                placed |= fresh
                while fresh:
                    bit = fresh.bit_length() - 1
                    fresh ^= 1 << bit
                    left &= after[bit]
                    progress = True
        return left, placed

    def choices(self, left: int) -> list[int]:
        """The candidates to branch on: those of a constraint with two candidates, or else of the open cell with the fewest."""
        for kind in self.kinds:
            one = two = three = 0
            for shift in kind.shifts:
                here = left >> shift & kind.firsts
                three |= two & here
                two |= one & here
                one |= here
            if pairs := two & ~three:
                first = next(bits(pairs))
                return [first + shift for shift in kind.shifts if left >> (first + shift) & 1]
        open_cells = (list(bits(left & self.rivals[cell][0])) for cell in range(self.area))
        return min((choices for choices in open_cells if len(choices) > 1), key=len)

    def solutions(self, left: int, placed: int, rng: Random | None = None) -> Iterator[int]:
        """All solutions within the candidates `left` that contain `placed`; in random order with an `rng`."""
        stack = [(left, placed)]
        while stack:
            left, placed = self.propagate(*stack.pop())
            if not left:
                continue
            if placed.bit_count() == self.area:
                yield placed
                continue
            choices = self.choices(left)
            if rng is not None:
                rng.shuffle(choices)
            stack.extend((left & self.after[bit], placed | 1 << bit) for bit in choices)


def solve(cells: Cells, size: int) -> Cells | None:
    """A full grid that keeps the givens, or None if the grid has no solution."""
    rules = rules_of(size)
    placed = rules.placed(cells)
    full = next(rules.solutions(rules.candidates(placed), placed), None)
    return None if full is None else rules.cells(full)


@lru_cache
def rules_of(size: int) -> Rules:
    """The constraints of a size in `grid.BOXES`."""
    shape = shape_of(size)
    area = size**2
    digits = range(size)
    of_cells = [[digit * area + cell for digit in digits] for cell in range(area)]
    of_rows, of_columns, of_boxes = (
        [[digit * area + cell for cell in unit] for digit in digits for unit in units] for units in (shape.rows, shape.columns, shape.boxes)
    )
    rivals = tuple(zip(*map(_constraint_of_each, (of_cells, of_rows, of_columns, of_boxes)), strict=True))
    everything = (1 << area * size) - 1
    return Rules(
        size=size,
        area=area,
        everything=everything,
        kinds=(_kind(of_cells), _kind(of_rows), _kind(of_columns), _kind(of_boxes)),
        after=tuple(everything & ~(a | b | c | d) | 1 << bit for bit, (a, b, c, d) in enumerate(rivals)),
        rivals=rivals,
    )


def bits(candidates: int) -> Iterator[int]:
    """Positions of the set bits, highest first."""
    while candidates:
        bit = candidates.bit_length() - 1
        yield bit
        candidates ^= 1 << bit


def bit_set(numbers: Iterable[int]) -> int:
    """The integer with these bits set (positions must be distinct)."""
    return sum(1 << number for number in numbers)


def _kind(constraints: list[list[int]]) -> Kind:
    first = constraints[0]
    return Kind(firsts=bit_set(constraint[0] for constraint in constraints), shifts=tuple(bit - first[0] for bit in first))


def _constraint_of_each(constraints: list[list[int]]) -> list[int]:
    """For each candidate, the candidates of its constraint."""
    sets = {bit: bit_set(constraint) for constraint in constraints for bit in constraint}
    return [sets[bit] for bit in sorted(sets)]
