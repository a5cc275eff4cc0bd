"""What a Sudoku percept, answer and picture are, and which settings are refused."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from percasym.tasks.canvas import Look
from percasym.tasks.sudoku.task import Sudoku
from tests.unit.tasks.sudoku_cover import solutions_by_exact_cover
from tests.unit.tasks.sudoku_settings import BOX, LOOK, keys

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
    question = Sudoku(size=6, givens=(14, 18), question="full", look=LOOK).question_text()
    for part in ("6x6", "2 rows and 3 columns", "<perception>", "</perception>", "<answer>", "</answer>", "0 for an empty cell"):
        assert part in question


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


def test_what_is_no_percept_is_neither_drawn_nor_solved() -> None:
    task, (key,) = Sudoku(size=4), keys(1)
    with pytest.raises(ValueError, match=r"Only 4 lines of 4 digits can be drawn, got '12'\. Parse the percept first\."):
        task.draw("12", key)
    assert task.solve("12") is None and task.solve("1034\n0021\n3400\n0003") == "1234\n4321\n3412\n2143"
