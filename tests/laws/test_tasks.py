"""What every task obeys, at several sizes: pure in the key, split by puzzle, strict where it grades."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from percasym.metrics import grade
from percasym.spans.grammar import Grammar
from percasym.tasks.base import SPLITS, Task, prompt_as_text, split_of
from percasym.tasks.canvas import Look
from percasym.tasks.graph_coloring.task import GraphColoring
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import Completion, Grade, Rollout, SampleKey
from tests.laws.plugins import ROOT, files, made


@dataclass(frozen=True)
class Case:
    """A task with an oracle of right answers, and its part of the 100,000 keys of the split law."""

    task: Task
    is_right: Callable[[str, str, str], bool]
    """(percept, answer, one right answer) -> is the answer right? Written without the task's code."""
    num_keys: int


def plugin_cases() -> dict[str, Case]:
    """Generated tasks of other packages, as their yaml sets them. They bring no oracle: their own `verify` decides what is right."""
    tasks = {name: made(path) for name, path in files("task").items() if not path.is_relative_to(ROOT / "conf")}
    generated = {name: task for name, task in tasks.items() if not task.lacks}
    return {name: Case(task, lambda percept, answer, _, task=task: task.verify(percept, answer), 0) for name, task in generated.items()}


def sudoku_is_right(percept: str, answer: str, right: str) -> bool:
    # Puzzles have one solution, and only white space around it is free.
    return answer.strip() == right


def coloring_is_right(percept: str, answer: str, right: str) -> bool:
    # Every node once, neighbours differ, and as many distinct colours as an optimal colouring has.
    num_nodes, edges = percept.split(":")
    entries = answer.split()
    if not all(re.fullmatch("[A-O][1-9][0-9]*", entry) for entry in entries):
        return False
    color = {entry[0]: entry[1:] for entry in entries}
    nodes = "ABCDEFGHIJKLMNO"[: int(num_nodes)]
    if sorted(entry[0] for entry in entries) != list(nodes) or any(color[a] == color[b] for a, b in edges.split()):
        return False
    return len(set(color.values())) == len({entry[1:] for entry in right.split()})


CASES = {
    "sudoku-4": Case(Sudoku(), sudoku_is_right, 40_000),
    "sudoku-6": Case(Sudoku(size=6, givens=(14, 18), verbosity=1, look=Look(image_px=96)), sudoku_is_right, 8_000),
    "sudoku-9": Case(Sudoku(size=9, givens=(30, 40), verbosity=1, look=Look(image_px=144)), sudoku_is_right, 4_000),
    "coloring-5": Case(GraphColoring(), coloring_is_right, 40_000),
    "coloring-8": Case(
        GraphColoring(nodes=(6, 8), chromatic=(2, 4), layout="scattered", look=Look(image_px=192)), coloring_is_right, 6_000
    ),
    "coloring-12": Case(GraphColoring(nodes=(9, 12), density=(0.3, 0.4), look=Look(image_px=256)), coloring_is_right, 2_000),
}
assert sum(case.num_keys for case in CASES.values()) == 100_000
CASES |= plugin_cases()
SMALL = ("sudoku-4", "coloring-5")

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
each_small_case = pytest.mark.parametrize("case", [CASES[name] for name in SMALL], ids=SMALL)


def key_of(case: Case, index: int, split: str = "test", seed: int = 0) -> SampleKey:
    return SampleKey(task=case.task.name, split=split, seed=seed, index=index)


def graded(case: Case, key: SampleKey, truth: str, text: str) -> Grade:
    response = Grammar().read(text.encode())
    completion = Completion(ids=(), logprobs=None, finished=True)
    return grade(case.task, truth, Rollout(prompt=case.task.sample(key).prompt, completion=completion, response=response, labels=()))


def edits(text: str, alphabet: str) -> list[str]:
    """Every text that is one character away: replaced, inserted, left out, or swapped with its neighbour."""
    replaced = [text[:at] + new + text[at + 1 :] for at, new in product(range(len(text)), alphabet)]
    inserted = [text[:at] + new + text[at:] for at, new in product(range(len(text) + 1), alphabet)]
    left_out = [text[:at] + text[at + 1 :] for at in range(len(text))]
    swapped = [text[:at] + text[at + 1] + text[at] + text[at + 2 :] for at in range(len(text) - 1)]
    return [edit for edit in {*replaced, *inserted, *left_out, *swapped} if edit != text]


ALPHABET = "012345ABCDEO: ,\n-"


# Pure in the key


@each_case
def test_a_sample_is_a_pure_function_of_its_key(case: Case) -> None:
    keys = [key_of(case, index, split) for index, split in product(range(2), SPLITS)]
    forward = [case.task.sample(key) for key in keys]
    assert [case.task.sample(key) for key in reversed(keys)] == forward[::-1]


@each_case
def test_every_field_of_the_key_matters(case: Case) -> None:
    keys = [key_of(case, 0), key_of(case, 1), key_of(case, 0, seed=1), key_of(case, 0, split="base")]
    assert len({case.task.sample(key).prompt.image for key in keys}) == len(keys)


@each_case
def test_truth_is_the_percept_of_the_sample(case: Case) -> None:
    for index in range(3):
        sample = case.task.sample(key_of(case, index))
        assert sample.truth == case.task.truth(key_of(case, index)) == case.task.parse(sample.truth)


@each_case
def test_settings_of_seeing_and_telling_leave_the_puzzle_alone(case: Case) -> None:
    changes = {"verbosity": 3, "question": "full", "look": replace(case.task.look, noise=0.2, jitter=0.1)}
    other = replace(case.task, **{name: value for name, value in changes.items() if hasattr(case.task, name)})
    assert [other.truth(key_of(case, index)) for index in range(5)] == [case.task.truth(key_of(case, index)) for index in range(5)]


# Splits


def splits_of(case: Case, num_keys: int) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {split: set() for split in SPLITS}
    for index in range(num_keys // len(SPLITS)):
        for split in SPLITS:
            found[split].add(case.task.canonical(case.task.truth(key_of(case, index, split, seed=index % 3))))
    return found


def assert_disjoint(found: dict[str, set[str]]) -> None:
    assert sum(map(len, found.values())) == len(set().union(*found.values()))


@each_case
def test_no_two_splits_share_a_puzzle(case: Case) -> None:
    assert_disjoint(splits_of(case, case.num_keys // 40 or 400))


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES.values() if case.num_keys], ids=[name for name in CASES if CASES[name].num_keys])
def test_no_two_splits_share_a_puzzle_over_100_000_keys(case: Case) -> None:
    assert_disjoint(splits_of(case, case.num_keys))


def test_the_split_law_can_fail() -> None:
    with pytest.raises(AssertionError):
        assert_disjoint({"base": {"a", "b"}, "test": {"b"}})


@each_small_case
def test_small_universes_fill_every_split_again_and_again(case: Case) -> None:
    found = splits_of(case, 400)
    assert all(len(puzzles) > 20 for puzzles in found.values())
    assert all(split_of(puzzle) == split for split, puzzles in found.items() for puzzle in puzzles)


@each_case
def test_an_unknown_split_is_refused_by_name(case: Case) -> None:
    with pytest.raises(ValueError, match="No split named 'validation'; the splits are base, train_sft, train_rl, test"):
        case.task.truth(key_of(case, 0, split="validation"))


# Grades


@each_case
def test_demonstrations_grade_all_right(case: Case) -> None:
    for index in range(4):
        key = key_of(case, index, "train_sft")
        sample = case.task.sample(key)
        text = sample.demonstration.perception + sample.demonstration.reasoning
        verdict = graded(case, key, sample.truth, text)
        assert (verdict.perception, verdict.outcome, verdict.faithful) == (True, True, True)
        assert verdict.perception_graded == 1
        assert verdict.faults == ()


@each_small_case
def test_no_corrupted_percept_is_taken_for_the_truth(case: Case) -> None:
    truth = case.task.truth(key_of(case, 0))
    corrupted = [edit for edit in edits(truth, ALPHABET) if edit.strip() != truth]
    assert len(corrupted) > 300
    for edit in corrupted:
        stated = case.task.parse(edit)
        assert stated != truth
        assert case.task.agreement(truth, edit) < 1
        assert (case.task.agreement(truth, edit) > 0) <= (stated is not None)


@each_small_case
def test_corrupted_answers_are_right_only_when_they_really_are(case: Case) -> None:
    sample = case.task.sample(key_of(case, 0))
    corrupted = edits(sample.solution, ALPHABET)
    assert len(corrupted) > 300
    right = [edit for edit in corrupted if case.is_right(sample.truth, edit, sample.solution)]
    assert [edit for edit in corrupted if case.task.verify(sample.truth, edit)] == right
    assert len(right) < len(corrupted) / 10


@each_small_case
def test_corrupted_spans_are_seen_by_the_grader(case: Case) -> None:
    key = key_of(case, 0)
    sample = case.task.sample(key)
    tags = Grammar()
    for edit in edits(sample.truth, "07Z\n")[::7]:
        text = tags.perception(edit) + sample.demonstration.reasoning
        assert graded(case, key, sample.truth, text).perception == (edit.strip() == sample.truth)
    for edit in edits(sample.solution, "07Z\n")[::7]:
        text = sample.demonstration.perception + f" So.{tags.open_answer}{edit}{tags.close_answer}"
        assert graded(case, key, sample.truth, text).outcome == case.is_right(sample.truth, edit, sample.solution)


@each_case
@settings(max_examples=100, deadline=None)
@given(text=st.one_of(st.text(), st.text(alphabet=ALPHABET, max_size=60)))
def test_no_text_upsets_the_graders(case: Case, text: str) -> None:
    truth = case.task.truth(key_of(case, 0))
    stated = case.task.parse(text)
    assert stated is None or case.task.parse(stated) == stated
    assert 0 <= case.task.agreement(truth, text) <= 1
    assert not case.task.verify(truth, text)
    assert not case.task.verify(text, text)
    assert stated is not None or (case.task.solve(text) is None and not case.task.valid(text))


@each_case
def test_another_puzzle_is_unlike_and_its_answer_right_only_by_chance(case: Case) -> None:
    samples = [case.task.sample(key_of(case, index)) for index in range(6)]
    for one, other in pairwise(samples):
        assert 0 <= case.task.agreement(one.truth, other.truth) < 1
        assert case.task.agreement(one.truth, other.truth) == pytest.approx(case.task.agreement(other.truth, one.truth))
        assert case.task.verify(one.truth, other.solution) == case.is_right(one.truth, other.solution, one.solution)


@each_case
def test_solve_finds_an_answer_that_verifies(case: Case) -> None:
    for index in range(5):
        truth = case.task.truth(key_of(case, index))
        assert case.task.verify(truth, case.task.solve(truth))


@each_case
def test_every_truth_is_valid(case: Case) -> None:
    assert all(case.task.valid(case.task.truth(key_of(case, index))) for index in range(20))


# Pictures and prompts


@each_case
def test_the_picture_depends_on_percept_and_key_only(case: Case) -> None:
    keys = [key_of(case, index) for index in range(3)]
    samples = [case.task.sample(key) for key in keys]
    for key, sample in zip(reversed(keys), reversed(samples), strict=True):
        assert case.task.draw(sample.truth, key) == sample.prompt.image


@each_case
def test_different_percepts_give_different_pictures_under_one_key(case: Case) -> None:
    percepts = {case.task.truth(key_of(case, index)) for index in range(12)}
    assert len({case.task.draw(percept, key_of(case, 0)) for percept in percepts}) == len(percepts)


@each_case
def test_pictures_are_square_rgb_pngs_of_the_asked_size(case: Case) -> None:
    image = Image.open(io.BytesIO(case.task.sample(key_of(case, 0)).prompt.image))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (case.task.look.image_px,) * 2)


@each_case
def test_a_percept_that_was_not_parsed_cannot_be_drawn(case: Case) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        case.task.draw("nonsense", key_of(case, 0))


@each_case
def test_the_text_prompt_holds_the_percept_and_no_picture(case: Case) -> None:
    sample = case.task.sample(key_of(case, 0))
    prompt = prompt_as_text(sample)
    assert prompt.image is None
    assert prompt.question == f"{sample.prompt.question}\n{sample.truth}"
    assert sample.truth not in sample.prompt.question
