"""Sudoku against oracles that share no code with it: an exact cover, and a reader that replays demonstrations."""

from __future__ import annotations

import io
import re
from collections import Counter
from random import Random

import numpy as np
import pytest
from PIL import Image

from percasym.tasks.canvas import Look
from percasym.tasks.sudoku.explain import WORDINGS
from percasym.tasks.sudoku.grid import read
from percasym.tasks.sudoku.puzzle import FEWEST, full_grid, twin
from percasym.tasks.sudoku.solver import rules_of
from percasym.tasks.sudoku.task import Sudoku
from percasym.tasks.wording import plainly
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


def solutions_by_exact_cover(percept: str, limit: int) -> list[str]:
    """Up to `limit` solutions, by Knuth's Algorithm X over sets of named demands."""
    rows = percept.split("\n")
    size = len(rows)
    meets = {
        (r, c, d): {("cell", r, c), ("row", r, d), ("column", c, d), ("box", box_of(size, r, c), d)}
        for r in range(size)
        for c in range(size)
        for d in range(1, size + 1)
    }
    met_by: dict[tuple, set] = {}
    for choice, demands in meets.items():
        for demand in demands:
            met_by.setdefault(demand, set()).add(choice)

    def without_rivals(open_demands: dict[tuple, set], choice: tuple) -> dict[tuple, set]:
        rivals = set().union(*(open_demands[demand] for demand in meets[choice]))
        return {demand: choices - rivals for demand, choices in open_demands.items() if demand not in meets[choice]}

    def extend(open_demands: dict[tuple, set], chosen: list[tuple]) -> None:
        if len(found) == limit:
            return
        if not open_demands:
            digits = {(r, c): str(d) for r, c, d in chosen}
            found.append("\n".join("".join(digits[r, c] for c in range(size)) for r in range(size)))
            return
        for choice in sorted(min(open_demands.values(), key=len)):
            extend(without_rivals(open_demands, choice), [*chosen, choice])

    found: list[str] = []
    givens = [(r, c, int(rows[r][c])) for r in range(size) for c in range(size) if rows[r][c] != "0"]
    for given in givens:
        if any(demand not in met_by for demand in meets[given]):
            return []
        met_by = without_rivals(met_by, given)
    extend(met_by, givens)
    return found


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
        """A grid written anew, which must be the board as it stands."""
        assert ["".join(str(self.board[r, c]) for c in range(self.size)) for r in range(self.size)] == rows
        self.counts["grid"] += 1

    @staticmethod
    def pattern(reader) -> str:
        return {"suppose": "TRY", "check_givens": "GIVENS"}.get(reader.__name__, reader.__name__.upper())

    def visit(self, r, c, row, column, refuted, leaves, box, guess, guessed_box, hit, candidates, digit, dead_end) -> None:
        cell = self.cell(r, c)
        assert self.board[cell] == 0
        if self.verbosity >= 2:  # Every look is told, so the order can be checked: reading order, pass after pass.
            open_cells = sorted(at for at, d in self.board.items() if not d)
            assert cell == next((at for at in open_cells if at > self.last), open_cells[0])
            assert None not in (leaves, candidates)
        self.last = cell
        assert self.numbers(row) == self.seen("row", cell[0])
        assert self.numbers(column) == self.seen("column", cell[1])
        assert self.numbers(box or guessed_box) == self.seen("box", box_of(self.size, *cell))
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
        assert needs not in self.seen(kind, int(number) - 1)
        places = [cell for cell in unit if not self.board[cell] and needs in self.candidates(cell)]
        if self.verbosity >= 2:
            said = [(self.cell(*at), why, int(d)) for *at, why, d in self.BLOCKED.findall(blocked)]
            assert [cell for cell, _, _ in said] == [cell for cell in unit if not self.board[cell] and cell not in places]
            for cell, why, d in said:
                assert d == needs
                at = {"row": cell[0], "column": cell[1], "box": box_of(self.size, *cell)}
                assert d in (self.refuted.get(cell, ()) if why == "not" else self.seen(why, at[why]))
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
            unit, there = self.unit(kind, int(number) - 1), self.seen(kind, int(number) - 1)
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

    def check(self, kinds, said) -> None:
        kind = {"rows": "row", "columns": "column", "boxes": "box"}[kinds]
        expected = [[self.board[cell] for cell in self.unit(kind, number)] for number in range(self.size)]
        assert [self.numbers(unit) for unit in said.split(", ")] == expected
        assert all(sorted(unit) == list(range(1, self.size + 1)) for unit in expected)

    def check_givens(self, said) -> None:
        rows = [[self.givens[cell] for cell in self.unit("row", number) if self.givens[cell]] for number in range(self.size)]
        assert [self.numbers(row) for row in said.split(", ")] == rows
        assert all(digit in (0, self.board[cell]) for cell, digit in self.givens.items())

    def unit(self, kind: str, number: int) -> list[tuple[int, int]]:
        return self.units[kind, number]

    def seen(self, kind: str, number: int) -> list[int]:
        return sorted(self.board[cell] for cell in self.unit(kind, number) if self.board[cell])

    def candidates(self, cell: tuple[int, int]) -> list[int]:
        seen = {*self.seen("row", cell[0]), *self.seen("column", cell[1]), *self.seen("box", box_of(self.size, *cell))}
        return [d for d in range(1, self.size + 1) if d not in seen | self.refuted.get(cell, frozenset())]

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
    def numbers(said: str) -> list[int]:
        return [] if said == "none" else [int(d) for d in said.split(" ")]


def replayed(task: Sudoku, key: SampleKey) -> Replay:
    sample = task.sample(key)
    thoughts, answer = plainly(sample.demonstration.reasoning, WORDINGS).split("<answer>")
    replay = Replay(sample.truth, task.verbosity)
    replay.read(thoughts)
    stated = "".join(str(replay.board[cell]) for cell in sorted(replay.board))
    assert stated == answer.removesuffix("</answer>").replace("\n", "")
    return replay


def with_verbosity(task: Sudoku, verbosity: int, reflect_frac: float = 0.5) -> Sudoku:
    return Sudoku(
        size=task.size, givens=task.givens, techniques=task.techniques, look=task.look, verbosity=verbosity, reflect_frac=reflect_frac
    )


# Puzzles


@each_setting
def test_every_puzzle_has_exactly_one_solution_which_solve_finds(task: Sudoku) -> None:
    for key in keys({4: 60, 6: 20, 9: 6}[task.size]):
        truth = task.truth(key)
        assert solutions_by_exact_cover(truth, limit=2) == [task.solve(truth)]


def test_the_exact_cover_of_these_tests_sees_several_solutions_and_none() -> None:
    # Swapping 1 and 2 throughout the empty upper left and lower left corners gives the second solution.
    assert len(solutions_by_exact_cover("0034\n0012\n0043\n0021", limit=9)) > 1
    assert solutions_by_exact_cover("1034\n0021\n3400\n0001", limit=2) == []


@each_setting
def test_puzzles_yield_to_the_techniques_they_promise(task: Sudoku) -> None:
    for key in keys({4: 20, 6: 8, 9: 2}[task.size]):
        counts = replayed(with_verbosity(task, 1), key).counts
        assert counts["suppose"] == 0 or task.techniques == "any"
        assert counts["place"] == 0 or task.techniques != "naked"


def test_harder_techniques_are_met_when_they_are_allowed() -> None:
    hidden = Sudoku(size=9, givens=(22, 24), techniques="hidden", verbosity=0, look=LOOK)
    some = Sudoku(size=6, givens=(9, 9), techniques="any", verbosity=0, look=LOOK)
    assert sum(replayed(with_verbosity(hidden, 1), key).counts["place"] for key in keys(1)) > 0
    assert sum(replayed(some, key).counts["suppose"] for key in keys(8)) > 0


@each_setting
def test_the_number_of_givens_covers_the_range_and_never_leaves_it(task: Sudoku) -> None:
    low, high = task.givens
    numbers = {sum(d not in "0\n" for d in task.truth(key)) for key in keys({4: 100, 6: 60, 9: 20}[task.size], split="base")}
    assert numbers <= set(range(low, high + 1))
    assert len(numbers) > (high - low) / 2


@pytest.mark.parametrize("size", [4, 6, 9])
@pytest.mark.parametrize("techniques", ["naked", "hidden", "any"])
def test_the_fewest_allowed_givens_are_reached(size: int, techniques: str) -> None:
    fewest = FEWEST[size][techniques]
    truth = Sudoku(size=size, givens=(fewest, fewest), techniques=techniques, look=LOOK).truth(keys(1)[0])
    assert sum(d not in "0\n" for d in truth) == fewest


def test_all_288_grids_of_size_4_are_drawn_about_equally_often() -> None:
    rules, rng = rules_of(4), Random(0)
    grids = Counter(full_grid(rules, rng) for _ in range(12_000))
    grids.pop(None)
    # About 6,000 grids over 288: 21 each, standard deviation 4.6.
    assert len(grids) == 288
    assert max(grids.values()) < 21 + 6 * 4.6


@pytest.mark.parametrize("size", [4, 6, 9])
def test_twins_keep_units_intact(size: int) -> None:
    rules, rng = rules_of(size), Random(0)
    full = next(full for _ in range(99) if (full := full_grid(rules, rng)))
    twins = {twin(rules.cells(full), size, rng) for _ in range(50)}
    task = Sudoku(size=size, givens=(30, 30) if size > 4 else (7, 7), look=LOOK)
    empty = "\n".join(["0" * size] * size)
    assert len(twins) > 20
    for cells in twins:
        rows = ["".join(map(str, cells[start : start + size])) for start in range(0, size * size, size)]
        assert task.verify(empty, "\n".join(rows))


def test_puzzles_with_renamed_digits_are_the_same_puzzle() -> None:
    task = Sudoku()
    assert task.canonical("0034\n0012\n0043\n0021") == task.canonical("0012\n0034\n0021\n0043") == "0012\n0034\n0021\n0043"
    assert task.canonical("0034\n0012\n0043\n0021") != task.canonical("0034\n0012\n0043\n0012")


# Solver


def test_the_solver_finds_each_of_the_288_grids_of_size_4_once() -> None:
    rules = rules_of(4)
    found = list(rules.solutions(rules.everything, 0))
    assert len(found) == len(set(found)) == 288


@pytest.mark.parametrize(
    ("percept", "is_solvable"),
    [
        ("400000805 030000000 000700000 020000060 000080400 000010000 000603070 500200000 104000000", True),
        ("000005080 000601043 000000000 010500000 000106000 300000005 530000061 000000004 000000000", False),
        ("000000000 " * 8 + "000000000", True),
        ("110000000 " + "000000000 " * 7 + "000000000", False),
    ],
    ids=["17_givens", "norvigs_impossible_one", "empty", "clash"],
)
def test_hard_and_hopeless_percepts_are_settled(percept: str, is_solvable: bool) -> None:
    percept = percept.replace(" ", "\n")
    task = Sudoku(size=9, givens=(30, 40), look=LOOK)
    solution = task.solve(percept)
    assert (solution is not None) == is_solvable
    assert solution is None or task.verify(percept, solution)


@pytest.mark.parametrize("size", [4, 6])
def test_solve_agrees_with_the_exact_cover_on_random_givens(size: int) -> None:
    task, rng = Sudoku(size=size, givens=(9, 9), look=LOOK), Random(size)
    verdicts = Counter()
    for _ in range(40):
        digits = [rng.randint(1, size) if rng.random() < 0.2 else 0 for _ in range(size * size)]
        percept = "\n".join("".join(map(str, digits[start : start + size])) for start in range(0, size * size, size))
        solution = task.solve(percept)
        assert (solution is not None) == bool(solutions_by_exact_cover(percept, limit=1))
        assert solution is None or task.verify(percept, solution)
        verdicts[solution is None] += 1
    assert min(verdicts[True], verdicts[False]) > 3


# Percepts and answers


@pytest.mark.parametrize("text", ["1034\n0021\n3400\n0002", " \n1034\n0021\n3400\n0002\n", "1111\n1111\n1111\n1111"])
def test_parse_reads_a_grid_whatever_its_digits_say(text: str) -> None:
    assert Sudoku().parse(text) == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1034\n0021\n3400",
        "1034\n0021\n3400\n0002\n0000",
        "1034\n0021\n3400\n000",
        "1034\n0021\n3400\n00020",
        "1034\n0021\n3400\n0005",
        "1034 0021 3400 0002",
        "1 0 3 4\n0021\n3400\n0002",
        "1034\n\n0021\n3400\n0002",
        "1034\r\n0021\r\n3400\r\n0002",
        "1.34\n0021\n3400\n0002",
        "1034\n0021 \n3400\n0002",
        "1034\n0021\n3400\n000\u0662",
        "grid: 1034\n0021\n3400\n0002",
        "1034002134000002",
    ],
)
def test_parse_refuses_whatever_is_not_exactly_a_grid(text: str) -> None:
    assert Sudoku().parse(text) is None


def test_agreement_is_the_share_of_equal_cells() -> None:
    task, truth = Sudoku(), "1034\n0021\n3400\n0002"
    assert task.agreement(truth, truth) == 1
    assert task.agreement(truth, "1034\n0021\n3400\n0012") == 15 / 16
    assert task.agreement(truth, "0000\n0000\n0000\n0000") == 8 / 16  # Eight cells are empty.
    assert task.agreement(truth, "1034\n0021\n3400") == 0


def test_verify_accepts_every_completion_and_nothing_else() -> None:
    task, loose = Sudoku(), "0034\n0012\n0043\n0021"
    completions = solutions_by_exact_cover(loose, limit=99)
    assert len(completions) > 1
    assert all(task.verify(loose, completion) for completion in completions)
    full = completions[0]
    assert not task.verify("0043\n0012\n0043\n0021", full)  # A given is not kept.
    assert not task.verify(loose, full.replace(full[0], "0", 1))  # A cell is empty.
    assert not task.verify(loose, "2134\n3412\n1243\n4321".replace("2134", "1234"))  # 1 twice in a column.
    assert not task.verify(loose, "1234\n2341\n3412\n4123")  # Rows and columns are right, boxes are not.
    assert not task.verify("not a grid", full)


# Pictures


def grey(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"), dtype=float)


@pytest.mark.parametrize("size", [4, 6, 9])
def test_lines_lie_on_the_pixel_grid_and_are_thick_around_boxes(size: int) -> None:
    task = Sudoku(size=size, givens=(30, 30) if size > 4 else (7, 7), look=Look(image_px=16 * size))
    ink = 255 - grey(task.draw("\n".join(["0" * size] * size), keys(1)[0]))
    for axis, box in ((1, BOX[size][0]), (0, BOX[size][1])):
        profile = ink.min(axis=axis)  # What is dark from end to end.
        for line in range(1, size):
            here = profile[16 * line - 3 : 16 * line + 3].sum() / 255
            assert here == pytest.approx(2 if line % box == 0 else 1, abs=0.5)
        for cell in range(size):
            assert profile[16 * cell + 3 : 16 * cell + 13].max() == 0
        assert min(profile[0], profile[-1]) > 255 / 2  # The border lies inside the picture.


@pytest.mark.parametrize("size", [4, 6, 9])
def test_one_other_digit_changes_the_pixels_of_its_cell_only(size: int) -> None:
    look = Look(image_px=16 * size, fonts=("sans", "serif"), glyph=(0.5, 0.7), contrast=(0.4, 1), dark_frac=0.5, jitter=0.1, noise=0.05)
    task = Sudoku(size=size, givens=(30, 30) if size > 4 else (7, 7), look=look)
    key = keys(1)[0]
    truth = list(task.truth(key))
    first = next(index for index, digit in enumerate(truth) if digit not in "0\n")
    other = [*truth[:first], "0", *truth[first + 1 :]]
    changed = grey(task.draw("".join(truth), key)) != grey(task.draw("".join(other), key))
    row, column = divmod(first, size + 1)  # A line of the text is one longer than the grid is wide.
    assert changed[16 * row : 16 * row + 16, 16 * column : 16 * column + 16].any()
    changed[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = False
    assert not changed.any()


# Demonstrations


@each_setting
@pytest.mark.parametrize("verbosity", range(5))
def test_every_statement_of_a_demonstration_is_true(task: Sudoku, verbosity: int) -> None:
    for key in keys({4: 6, 6: 2, 9: 1}[task.size], split="train_sft"):
        replayed(with_verbosity(task, verbosity), key)


@pytest.mark.parametrize(("size", "givens", "techniques"), [(4, (5, 9), "naked"), (6, (9, 9), "any")])
def test_a_restated_grid_follows_every_change_of_the_board(size: int, givens: tuple[int, int], techniques: str) -> None:
    for key in keys(8):
        counts = replayed(Sudoku(size=size, givens=givens, techniques=techniques, look=LOOK, restate=True), key).counts
        assert counts["grid"] >= size * size - givens[1] + 2 * counts["undo"]


def test_other_words_say_the_same() -> None:
    plain, other = Sudoku(restate=True), Sudoku(restate=True, variety_frac=1.0)
    for key in keys(8):
        replayed(other, key)
        said, meant = other.sample(key).demonstration.reasoning, plain.sample(key).demonstration.reasoning
        assert said != meant and plainly(said, WORDINGS) == meant


def test_terse_demonstrations_are_those_that_give_results_only() -> None:
    full, terse, mixed = (Sudoku(restate=True, terse_frac=frac) for frac in (0.0, 1.0, 0.5))
    kinds = set()
    for key in keys(12, split="train_sft"):
        replayed(mixed, key)
        long, short, said = (task.sample(key).demonstration.reasoning for task in (full, terse, mixed))
        assert short == Sudoku(verbosity=0).sample(key).demonstration.reasoning
        kinds.add({long: "full", short: "terse"}[said])
    assert kinds == {"full", "terse"}


def test_demonstrations_catch_and_undo_their_own_guesses() -> None:
    task = Sudoku(reflect_frac=1.0)
    counts = sum((replayed(task, key).counts for key in keys(30)), Counter())
    assert counts["caught"] > 5
    assert counts["fine"] > 5
    assert not {"caught", "fine"} & set(sum((replayed(Sudoku(reflect_frac=0.0), key).counts for key in keys(5)), Counter()))


def test_failed_tries_are_undone_in_words_at_every_verbosity() -> None:
    for verbosity in range(5):
        task = Sudoku(size=6, givens=(9, 9), techniques="any", verbosity=verbosity, look=LOOK)
        counts = sum((replayed(task, key).counts for key in keys(8)), Counter())
        assert counts["undo"] > 0


def test_the_replay_notices_every_changed_digit() -> None:
    sample = Sudoku(verbosity=4, reflect_frac=0.0).sample(keys(1)[0])
    thoughts = sample.demonstration.reasoning.split("<answer>")[0]
    places = [index for index, character in enumerate(thoughts) if character in "1234"]
    for index in places:
        corrupted = thoughts[:index] + str(int(thoughts[index]) % 4 + 1) + thoughts[index + 1 :]
        with pytest.raises(AssertionError):
            Replay(sample.truth, 4).read(corrupted)


def test_a_demonstration_reads_like_this() -> None:
    # Row 1 has 1 3 4, so r1c2 is 2; row 2 then has 2 1 and column 1 has 1 3, so r2c1 is 4; and so on.
    from percasym.tasks.sudoku.explain import explain

    givens, full = read("1034\n0021\n3412\n0143", 4), read("1234\n4321\n3412\n2143", 4)
    text = explain(givens, full, 4, Random(0), verbosity=2, reflect_frac=0.0)
    assert text == (
        "\nr1c2: row has 1 3 4, column has 1 4, leaves 2. Box has 1. Candidates 2. Set 2."
        "\nr2c1: row has 1 2, column has 1 3, leaves 4. Box has 1 2. Candidates 4. Set 4."
        "\nr2c2: row has 1 2 4, column has 1 2 4, leaves 3. Box has 1 2 4. Candidates 3. Set 3."
        "\nr4c1: row has 1 3 4, column has 1 3 4, leaves 2. Box has 1 3 4. Candidates 2. Set 2."
        "\nCheck rows: 1 2 3 4, 4 3 2 1, 3 4 1 2, 2 1 4 3. All differ.\n"
    )


def test_verbosity_moves_the_share_of_perception_tokens() -> None:
    piece = re.compile(r"</?\w+>|\s?[A-Za-z]+|\s?\d{1,2}|\s?[^\sA-Za-z\d]+|\s+")  # The tiny tokenizer's pieces; a tag is one.

    def share(verbosity: int) -> float:
        demonstrations = [Sudoku(verbosity=verbosity).sample(key).demonstration for key in keys(60, split="train_sft")]
        seen = sum(len(piece.findall(d.perception)) for d in demonstrations)
        thought = sum(len(piece.findall(d.reasoning)) + 1 for d in demonstrations)
        assert seen == 10 * len(demonstrations)  # Two tags, and each row is two pieces.
        return seen / (seen + thought)

    shares = [share(verbosity) for verbosity in range(5)]
    assert shares == sorted(shares, reverse=True)
    assert 0.13 < shares[0] < 0.16
    assert 0.028 < shares[2] < 0.033
    assert 0.024 < shares[4] < 0.027


# Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 5}, "task.size must be one of 4, 6, 9, got 5."),
        ({"techniques": "xwing"}, "task.techniques must be one of naked, hidden, any, got 'xwing'."),
        ({"size": 9, "look": LOOK}, "24 <= low <= high <= 80 at task.size=9 and task.techniques=naked, got [7, 9]."),
        ({"givens": (3, 9)}, "task.givens must be [low, high] with 4 <= low"),
        ({"givens": (9, 7)}, "got [9, 7]."),
        ({"givens": (16, 16)}, "high <= 15"),
        ({"verbosity": 5}, "task.verbosity must lie between 0 and 4, got 5."),
        ({"reflect_frac": 1.1}, "task.reflect_frac must lie in [0, 1], got 1.1."),
        ({"question": "long"}, "task.question must be brief or full, got 'long'."),
        ({"size": 9, "givens": (30, 40)}, "task.look.image_px must be at least 72 at task.size=9"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_cannot_work_are_refused_by_name(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Sudoku(**options)


def test_the_full_question_states_the_form_of_this_size() -> None:
    asked = Sudoku(size=6, givens=(14, 18), question="full", look=LOOK).ask()
    for part in ("6x6", "2 rows and 3 columns", "<perception>", "</perception>", "<answer>", "</answer>", "0 for an empty cell"):
        assert part in asked


@pytest.mark.parametrize(
    ("task", "percept", "is_valid"),
    [
        # Rows 1 2 3 4 / 3 4 1 2 / 2 1 4 3 / 4 3 2 1 with one cell of each row left out: every open cell is the last of its row.
        (Sudoku(givens=(12, 12)), "0234\n3012\n2103\n4320", True),
        (Sudoku(givens=(11, 11)), "0234\n3012\n2103\n4320", False),  # 12 givens.
        (Sudoku(givens=(12, 12)), "0234\n2012\n3103\n4320", False),  # Two 2s in the second row.
        (Sudoku(givens=(4, 15)), "1234\n3412\n2143\n4321", False),  # Solved: nothing is left to do.
        # The 1s and 2s of rows 1 and 3 in columns 1 and 2 can be exchanged: two solutions.
        (Sudoku(givens=(4, 15), techniques="any"), "0034\n3412\n0043\n4321", False),
        (Sudoku(givens=(8, 10)), "nonsense", False),
    ],
)
def test_a_valid_percept_has_the_givens_and_the_one_solution_of_its_task(task: Sudoku, percept: str, is_valid: bool) -> None:
    assert task.valid(percept) is is_valid
