"""Demonstrations of Sudoku, replayed by a reader that shares no code with them."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

import pytest

from percasym.tasks.sudoku.explain import WORDINGS
from percasym.tasks.sudoku.grid import read
from percasym.tasks.sudoku.task import Sudoku
from percasym.tasks.wording import plain_wording
from tests.unit.tasks.sudoku_replay import Replay, replayed, with_verbosity
from tests.unit.tasks.sudoku_settings import LOOK, each_setting, keys


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
        varied, original = other.sample(key).demonstration.reasoning, plain.sample(key).demonstration.reasoning
        assert varied != original and plain_wording(varied, WORDINGS) == original


def test_terse_demonstrations_are_those_that_give_results_only() -> None:
    full, terse, mixed = (Sudoku(restate=True, terse_frac=frac) for frac in (0.0, 1.0, 0.5))
    kinds = set()
    for key in keys(12, split="train_sft"):
        replayed(mixed, key)
        long, short, drawn = (task.sample(key).demonstration.reasoning for task in (full, terse, mixed))
        assert short == Sudoku(verbosity=0).sample(key).demonstration.reasoning
        kinds.add({long: "full", short: "terse"}[drawn])
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
    reasoning = sample.demonstration.reasoning.split("<answer>")[0]
    places = [index for index, character in enumerate(reasoning) if character in "1234"]
    for index in places:
        corrupted = reasoning[:index] + str(int(reasoning[index]) % 4 + 1) + reasoning[index + 1 :]
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
        perception = sum(len(piece.findall(d.perception)) for d in demonstrations)
        reasoning = sum(len(piece.findall(d.reasoning)) + 1 for d in demonstrations)
        assert perception == 10 * len(demonstrations)  # Two tags, and each row is two pieces.
        return perception / (perception + reasoning)

    shares = [share(verbosity) for verbosity in range(5)]
    assert shares == sorted(shares, reverse=True)
    assert 0.13 < shares[0] < 0.16
    assert 0.028 < shares[2] < 0.033
    assert 0.024 < shares[4] < 0.027
