"""An oracle that shares no code with the demonstrations: a reader that replays them and doubts every statement."""

from __future__ import annotations

import re
from collections import Counter

from percasym.tasks.sudoku.explain import WORDINGS
from percasym.tasks.sudoku.task import Sudoku
from percasym.tasks.wording import plain_wording
from percasym.types import SampleKey
from tests.unit.tasks.sudoku_settings import box_of


class Replay:
    """Reads a demonstration line by line, keeps its own board, and asserts that every statement is true of it."""

    SET = r"(none|\d(?: \d)*)"
    VISIT = re.compile(
        rf"r(\d)c(\d): row (?:has )?{SET}, column (?:has )?{SET}(?:, not {SET})?(?:, leaves {SET})?\. "
        rf"(?:Box (?:has )?{SET}|Try (\d)\. Check box (?:has )?{SET}: (?:fine|(\d) is there\. Undo))\. "
        rf"(?:Candidates {SET}\. )?(?:Set (\d)|Later|(Dead end))\."
    )
    PLACE = re.compile(
        r"(row|column|box) (\d) needs (\d): ((?:r\dc\d (?:row has|column has|box has|not) \d, )*)"
        r"(?:only r(\d)c(\d)\. Set (\d)|no cell\. (Dead end))\."
    )
    BLOCKED = re.compile(r"r(\d)c(\d) (row|column|box|not)(?: has)? (\d), ")
    RESULT = re.compile(r"r(\d)c(\d) (\d)\.")
    FAILS = re.compile(r"(?:r(\d)c(\d)|(row|column|box) (\d)) fails\.")
    TRY = re.compile(rf"(?:No single is left\. r(\d)c(\d) has {SET}\. )?Try r(\d)c(\d) (\d)\.")
    UNDO = re.compile(r"Undo r(\d)c(\d)(?: (\d) and all after it\. r(\d)c(\d) is not (\d))?\.")
    CHECK = re.compile(r"Check (rows|columns|boxes): ([\d ,]+)\. All differ\.")
    GIVENS = re.compile(r"Check givens: ((?:[\d ]+|none)(?:, (?:[\d ]+|none))*)\. All kept\.")

    def __init__(self, percept: str, verbosity: int) -> None:
        self.size, self.verbosity = len(percept.split("\n")), verbosity
        self.board = {(r, c): int(d) for r, row in enumerate(percept.split("\n")) for c, d in enumerate(row)}
        self.givens = dict(self.board)
        self.refuted: dict[tuple[int, int], frozenset[int]] = {}
        self.tries: list[tuple[tuple[int, int], int, dict, dict]] = []
        self.dead_end = False
        self.last = (-1, -1)
        self.counts: Counter[str] = Counter()
        self.units: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for r, c in self.board:
            for unit in (("row", r), ("column", c), ("box", box_of(self.size, r, c))):
                self.units.setdefault(unit, []).append((r, c))

    def read(self, text: str) -> None:
        lines = text.strip("\n").split("\n")
        while lines:
            if re.fullmatch(r"\d+", lines[0]):
                self.grid(lines[: self.size])
                del lines[: self.size]
                continue
            line = lines.pop(0)
            readers = (self.visit, self.place, self.result, self.fails, self.suppose, self.undo, self.check, self.check_givens)
            readings = [(reader, match) for reader in readers if (match := getattr(self, self.pattern(reader)).fullmatch(line))]
            assert len(readings) == 1, f"no reading of {line!r}"
            reader, match = readings[0]
            assert not self.dead_end or reader == self.undo, f"{line!r} goes on after a dead end"
            reader(*match.groups())
            self.counts[reader.__name__] += 1
        assert all(self.board.values())

    def grid(self, rows: list[str]) -> None:
        """A restated grid, which must equal the current board."""
        assert ["".join(str(self.board[r, c]) for c in range(self.size)) for r in range(self.size)] == rows
        self.counts["grid"] += 1

    @staticmethod
    def pattern(reader) -> str:
        return {"suppose": "TRY", "check_givens": "GIVENS"}.get(reader.__name__, reader.__name__.upper())

    def visit(self, r, c, row, column, refuted, leaves, box, guess, guessed_box, hit, candidates, digit, dead_end) -> None:
        cell = self.cell(r, c)
        assert self.board[cell] == 0
        if self.verbosity >= 2:  # Every visit is written, so the order can be checked: reading order, pass after pass.
            open_cells = sorted(at for at, d in self.board.items() if not d)
            assert cell == next((at for at in open_cells if at > self.last), open_cells[0])
            assert None not in (leaves, candidates)
        self.last = cell
        assert self.numbers(row) == self.digits_in("row", cell[0])
        assert self.numbers(column) == self.digits_in("column", cell[1])
        assert self.numbers(box or guessed_box) == self.digits_in("box", box_of(self.size, *cell))
        assert self.numbers(refuted or "none") == sorted(self.refuted.get(cell, ()))
        taken = {*self.numbers(row), *self.numbers(column), *self.numbers(refuted or "none")}
        left = [d for d in range(1, self.size + 1) if d not in taken]
        assert leaves is None or self.numbers(leaves) == left
        if guess:
            assert int(guess) in left
            assert len(left) > 1
            assert hit in (None, guess)
            assert (hit is not None) == (int(guess) in self.numbers(guessed_box))
            self.counts["caught" if hit else "fine"] += 1
        expected = [d for d in left if d not in self.numbers(box or guessed_box)]
        assert expected == self.candidates(cell)
        assert candidates is None or self.numbers(candidates) == expected
        assert (digit is not None) == (len(expected) == 1)
        assert (dead_end is not None) == (not expected)
        self.dead_end = not expected
        if digit:
            assert expected == [int(digit)]
            self.board[cell] = int(digit)

    def place(self, kind, number, needs, blocked, r, c, digit, dead_end) -> None:
        unit, needs = self.unit(kind, int(number) - 1), int(needs)
        assert needs not in self.digits_in(kind, int(number) - 1)
        places = [cell for cell in unit if not self.board[cell] and needs in self.candidates(cell)]
        if self.verbosity >= 2:
            stated = [(self.cell(*at), why, int(d)) for *at, why, d in self.BLOCKED.findall(blocked)]
            assert [cell for cell, _, _ in stated] == [cell for cell in unit if not self.board[cell] and cell not in places]
            for cell, why, d in stated:
                assert d == needs
                at = {"row": cell[0], "column": cell[1], "box": box_of(self.size, *cell)}
                assert d in (self.refuted.get(cell, ()) if why == "not" else self.digits_in(why, at[why]))
        self.dead_end = dead_end is not None
        assert places == ([] if dead_end else [self.cell(r, c)])
        self.last = (-1, -1)
        if not dead_end:
            assert int(digit) == needs
            self.board[places[0]] = needs

    def result(self, r, c, digit) -> None:
        cell = self.cell(r, c)
        assert self.board[cell] == 0
        assert self.is_single(cell, int(digit))
        self.board[cell] = int(digit)

    def fails(self, r, c, kind, number) -> None:
        if kind is None:
            assert self.board[self.cell(r, c)] == 0
            assert not self.candidates(self.cell(r, c))
        else:
            unit, there = self.unit(kind, int(number) - 1), self.digits_in(kind, int(number) - 1)
            able = set().union(*(self.candidates(cell) for cell in unit if not self.board[cell]))
            assert set(range(1, self.size + 1)) - able - set(there)
        self.dead_end = True

    def suppose(self, r, c, candidates, try_r, try_c, digit) -> None:
        cell = self.cell(try_r, try_c)
        assert self.board[cell] == 0
        counts = {at: len(self.candidates(at)) for at, d in self.board.items() if not d}
        assert counts[cell] == min(counts.values()) >= 2
        assert not any(self.is_single(at, d) for at in counts for d in self.candidates(at))
        assert int(digit) in self.candidates(cell)
        if candidates is not None:
            assert self.cell(r, c) == cell
            assert self.numbers(candidates) == self.candidates(cell)
        self.tries.append((cell, int(digit), dict(self.board), dict(self.refuted)))
        self.board[cell] = int(digit)
        self.last = (-1, -1)

    def undo(self, r, c, digit, not_r, not_c, not_digit) -> None:
        assert self.dead_end
        cell, tried, self.board, self.refuted = self.tries.pop()
        assert self.cell(r, c) == cell
        if digit is not None:
            assert (self.cell(not_r, not_c), int(digit), int(not_digit)) == (cell, tried, tried)
        self.refuted[cell] = self.refuted.get(cell, frozenset()) | {tried}
        self.dead_end, self.last = False, (-1, -1)

    def check(self, kinds, stated) -> None:
        kind = {"rows": "row", "columns": "column", "boxes": "box"}[kinds]
        expected = [[self.board[cell] for cell in self.unit(kind, number)] for number in range(self.size)]
        assert [self.numbers(unit) for unit in stated.split(", ")] == expected
        assert all(sorted(unit) == list(range(1, self.size + 1)) for unit in expected)

    def check_givens(self, stated) -> None:
        rows = [[self.givens[cell] for cell in self.unit("row", number) if self.givens[cell]] for number in range(self.size)]
        assert [self.numbers(row) for row in stated.split(", ")] == rows
        assert all(digit in (0, self.board[cell]) for cell, digit in self.givens.items())

    def unit(self, kind: str, number: int) -> list[tuple[int, int]]:
        return self.units[kind, number]

    def digits_in(self, kind: str, number: int) -> list[int]:
        return sorted(self.board[cell] for cell in self.unit(kind, number) if self.board[cell])

    def candidates(self, cell: tuple[int, int]) -> list[int]:
        taken = {*self.digits_in("row", cell[0]), *self.digits_in("column", cell[1]), *self.digits_in("box", box_of(self.size, *cell))}
        return [d for d in range(1, self.size + 1) if d not in taken | self.refuted.get(cell, frozenset())]

    def is_single(self, cell: tuple[int, int], digit: int) -> bool:
        """Whether a digit is forced in an open cell: no other fits there, or it fits nowhere else in a unit."""
        if self.candidates(cell) == [digit]:
            return True
        units = (("row", cell[0]), ("column", cell[1]), ("box", box_of(self.size, *cell)))
        return any([at for at in self.unit(*u) if not self.board[at] and digit in self.candidates(at)] == [cell] for u in units)

    @staticmethod
    def cell(r: str, c: str) -> tuple[int, int]:
        return int(r) - 1, int(c) - 1

    @staticmethod
    def numbers(stated: str) -> list[int]:
        return [] if stated == "none" else [int(d) for d in stated.split(" ")]


def replayed(task: Sudoku, key: SampleKey) -> Replay:
    sample = task.sample(key)
    reasoning, answer = plain_wording(sample.demonstration.reasoning, WORDINGS).split("<answer>")
    replay = Replay(sample.truth, task.verbosity)
    replay.read(reasoning)
    stated = "".join(str(replay.board[cell]) for cell in sorted(replay.board))
    assert stated == answer.removesuffix("</answer>").replace("\n", "")
    return replay


def with_verbosity(task: Sudoku, verbosity: int, reflect_frac: float = 0.5) -> Sudoku:
    return Sudoku(
        size=task.size, givens=task.givens, techniques=task.techniques, look=task.look, verbosity=verbosity, reflect_frac=reflect_frac
    )
