"""Sudoku puzzles and their solver against an exact cover."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from percasym.tasks.sudoku import puzzle
from percasym.tasks.sudoku.puzzle import FEWEST, full_grid, twin
from percasym.tasks.sudoku.solver import rules_of
from percasym.tasks.sudoku.task import Sudoku
from tests.unit.tasks.sudoku_cover import solutions_by_exact_cover
from tests.unit.tasks.sudoku_replay import replayed, with_verbosity
from tests.unit.tasks.sudoku_settings import LOOK, each_setting, keys

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


def test_a_puzzle_with_too_few_givens_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(puzzle, "MAX_GRIDS", 1)  # Few grids can be dug to 22 givens that naked singles solve.
    with pytest.raises(ValueError, match=r"None of 1 grids of task\.size=9 could be dug to 22 givens\. Raise task\.givens\."):
        puzzle._draw(rules_of(9), (22, 22), "naked", Random(0))
