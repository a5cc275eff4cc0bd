"""Each reward on percepts small enough to be scored by hand."""

from __future__ import annotations

import io
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from percasym.rewards.pictures import read_pixels, write_pixels
from percasym.rewards.rerender import correlation, ink
from percasym.spans.grammar import Grammar
from percasym.tasks.canvas import FONTS, Look
from percasym.tasks.graph_coloring.task import GraphColoring
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import Prompt, SampleKey, Span

P, R = Span.perception, Span.reasoning

GRID = "0234\n3012\n2103\n4320"  # One cell left out of each row of:
SOLVED = "1234\n3412\n2143\n4321"
SLIP = "0234\n3012\n2103\n4300"  # Its last 2 is not seen: 15 of 16 cells agree, and the rest has the same solution.
EXCHANGED = "0134\n3021\n1203\n4310"  # 1 and 2 exchanged: 8 of 16 cells agree, and the solution is another.
SUDOKU = Sudoku(givens=(11, 12))

GRAPH = "5: AB AC BC CD DE"  # A triangle with a tail.
MISSED = "5: AB AC BC CD CE"  # DE is taken for CE: 4 edges of 5 are shared, F1 = 4/5.
TWO_SIDED = "5: AC AD AE BC BD BE"  # Two colours are enough, and too few for the triangle.
COLORED = "A1 B2 C3 D1 E2"  # Right for GRAPH, and wrong for TWO_SIDED, which needs no third colour.
COLORING = GraphColoring()


def prompt_of(task: Any, percept: str, index: int = 0) -> Prompt:
    key = SampleKey(task=task.name, split="test", seed=0, index=index)
    return Prompt(key=key, image=task.draw(percept, key), question="Q")


def response(percept: str, answer: str = "") -> str:
    demonstration = Grammar().demonstrate(percept, " So", answer)
    return demonstration.perception + demonstration.reasoning


@pytest.fixture
def groups_of(rollout: Any) -> Any:
    """`groups_of(prompt, *texts)`: one group."""
    return lambda prompt, *texts, **options: [[rollout(prompt, text, **options) for text in texts]]


# consensus


@pytest.mark.parametrize(("task", "percept", "other", "shared"), [(SUDOKU, GRID, SLIP, 15 / 16), (COLORING, GRAPH, MISSED, 4 / 5)])
def test_soft_consensus_is_the_mean_agreement_with_the_siblings(
    task: Any, percept: str, other: str, shared: float, reward: Any, context: Any, groups_of: Any
) -> None:
    groups = groups_of(prompt_of(task, percept), response(percept), response(percept), response(other), "unreadable")
    # Each of the two equal ones meets its twin (1) and the third (shared), which meets two (shared); the unreadable does not vote.
    assert reward("consensus").score(groups, context(task)) == [pytest.approx([(1 + shared) / 2] * 2 + [shared, 0.0])]


def test_a_consensus_needs_another_readable_percept(reward: Any, context: Any, groups_of: Any) -> None:
    groups = groups_of(prompt_of(SUDOKU, GRID), response(GRID), "unreadable", response("5678"))
    for vote in ("soft", "majority"):
        assert reward("consensus", vote=vote).score(groups, context(SUDOKU)) == [[None, 0.0, 0.0]]


def test_the_majority_scores_one_and_a_tie_has_no_score(reward: Any, context: Any, groups_of: Any) -> None:
    prompt, majority = prompt_of(COLORING, GRAPH), reward("consensus", vote="majority")
    won = groups_of(prompt, response(GRAPH), response(MISSED), response("5: BC AB AC DE CD"))  # The last is GRAPH in another order.
    tied = groups_of(prompt, response(GRAPH), response(MISSED), response(GRAPH), response(MISSED), "unreadable")
    assert majority.score(won + tied, context(COLORING)) == [[1.0, 0.0, 1.0], [None, None, None, None, 0.0]]


# rerender


def test_likeness_is_the_correlation_of_pixels_where_it_is_positive() -> None:
    spot = np.array([[0.0, 0.0], [0.0, 4.0]])  # Less its mean: -1 -1 -1 3.
    bar = np.array([[0.0, 0.0], [4.0, 4.0]])  # Less its mean: -2 -2 2 2; with the spot 2 + 2 - 2 + 6 = 8, over sqrt(12 * 16).
    assert correlation(spot, bar) == pytest.approx(8 / math.sqrt(192))
    assert correlation(spot, spot) == correlation(spot, 10 + 2 * spot) == 1.0
    assert correlation(spot, 5 - spot) == 0.0
    assert correlation(spot, np.ones((2, 2))) == 0.0


@pytest.mark.parametrize(("task", "percept", "other"), [(SUDOKU, GRID, SLIP), (COLORING, GRAPH, MISSED)])
def test_only_the_true_percept_redraws_the_very_picture(
    task: Any, percept: str, other: str, reward: Any, context: Any, groups_of: Any
) -> None:
    groups = groups_of(prompt_of(task, percept), response(percept), response(other))
    [[right, wrong]] = reward("rerender", look="same").score(groups, context(task))
    assert right == 1.0 > wrong > 0.5


HARD = Look(image_px=96, fonts=tuple(FONTS), glyph=(0.55, 0.8), contrast=(0.35, 1.0), dark_frac=0.5, noise=0.06, jitter=0.08)


@pytest.mark.parametrize(
    ("task", "percept", "other"),
    [(Sudoku(look=HARD), GRID, "0230\n3012\n2103\n4324"), (GraphColoring(look=HARD), GRAPH, "5: AB AC BC AD AE")],
)
def test_the_true_percept_is_likelier_under_other_looks(
    task: Any, percept: str, other: str, reward: Any, context: Any, groups_of: Any
) -> None:
    groups = [groups_of(prompt_of(task, percept, index), response(percept), response(other))[0] for index in range(6)]
    scores = reward("rerender", look="other").score(groups, context(task))
    assert all(wrong < right < 1 for right, wrong in scores)  # A given moved to another cell; two edges misread.


def test_light_ink_counts_as_ink() -> None:
    pixels = np.full((8, 8, 3), 0.8)
    pixels[2:5, 3] = 0.2
    assert np.array_equal(ink(write_pixels(pixels), 1 / 8), ink(write_pixels(1 - pixels), 1 / 8))
    assert ink(write_pixels(pixels), 0.0)[:, 3].tolist() == [0, 0, 153, 153, 153, 0, 0, 0]  # 0.8 - 0.2 of 255.


# blindfold_solver and blindfold_self


def judge_of(task: Any, truth: str) -> Any:
    return lambda prompt, answer: task.verify(truth, answer)


@pytest.mark.parametrize(
    ("task", "truth", "percept", "score"),
    [
        (SUDOKU, GRID, GRID, 1.0),
        (SUDOKU, GRID, SLIP, 1.0),  # Misread, but enough for the solver.
        (SUDOKU, GRID, EXCHANGED, 0.0),
        (SUDOKU, GRID, "2234\n3012\n0103\n4320", 0.0),  # Two 2s in a row: no solution.
        (SUDOKU, GRID, SOLVED, 0.0),  # The reasoning was done under the name of perception.
        (COLORING, GRAPH, GRAPH, 1.0),
        (COLORING, GRAPH, TWO_SIDED, 0.0),
        (COLORING, GRAPH, "5: AB AC AD AE BC BD BE CD CE DE", 0.0),  # All joined: five colours are too many.
    ],
)
def test_the_blindfolded_solver_is_graded_by_its_answer(
    task: Any, truth: str, percept: str, score: float, reward: Any, context: Any, groups_of: Any
) -> None:
    groups = groups_of(prompt_of(task, truth), response(percept), "unreadable")
    assert reward("blindfold_solver").score(groups, context(task, right=judge_of(task, truth))) == [[score, 0.0]]


def test_a_solver_that_takes_any_percept_pays_for_the_solution(reward: Any, context: Any, groups_of: Any) -> None:
    groups = groups_of(prompt_of(SUDOKU, GRID), response(SOLVED))
    judged = context(SUDOKU, right=judge_of(SUDOKU, GRID))
    assert reward("blindfold_solver", only_valid=False).score(groups, judged) == [[1.0]]


@pytest.mark.parametrize(
    ("task", "percept", "other", "solution"), [(SUDOKU, GRID, SLIP, SOLVED), (COLORING, GRAPH, MISSED, COLORED)], ids=["sudoku", "coloring"]
)
def test_the_policy_answers_once_for_each_percept_without_the_picture(
    task: Any, percept: str, other: str, solution: str, reward: Any, context: Any, groups_of: Any
) -> None:
    calls = []

    def answers(prompts: Any) -> Any:
        calls.append(prompts)
        return [Grammar().read((response("?", solution) + tail).encode()) for tail in ("", " and more")]  # The second has a fault.

    prompt = prompt_of(task, percept)
    groups = groups_of(prompt, response(percept), response(other), response(percept), "unreadable")
    scores = reward("blindfold_self").score(groups, context(task, right=judge_of(task, percept), policy=SimpleNamespace(answers=answers)))
    assert scores == [[1.0, 0.0, 1.0, 0.0]]
    assert [[(own.key, own.image, own.question) for own in prompts] for prompts in calls] == [
        [(prompt.key, None, f"Q\n{percept}"), (prompt.key, None, f"Q\n{other}")]
    ]


# valid_state, faithful, confidence


@pytest.mark.parametrize(
    ("task", "percepts", "scores"),
    [
        (SUDOKU, (GRID, SLIP, EXCHANGED, SOLVED, "0000\n" * 3 + "0000"), [1, 1, 1, 0, 0]),
        (COLORING, (GRAPH, TWO_SIDED, "5: AB AC BC", "4: AB BC CD"), [1, 1, 0, 0]),  # D and E are alone; a node is missing.
    ],
)
def test_a_valid_state_is_one_that_the_task_could_show(
    task: Any, percepts: tuple[str, ...], scores: list[int], reward: Any, context: Any, groups_of: Any
) -> None:
    assert reward("valid_state").score(groups_of(prompt_of(task, percepts[0]), *map(response, percepts)), context(task)) == [scores]


def test_a_faithful_answer_solves_what_was_stated_true_or_not(reward: Any, context: Any, groups_of: Any) -> None:
    sudoku = groups_of(
        prompt_of(SUDOKU, EXCHANGED),
        response(GRID, SOLVED),
        response(EXCHANGED, SOLVED),
        response(GRID, SOLVED) + " that is all",
        response(GRID, SOLVED) + f"<answer>{SOLVED}</answer>",
        Grammar().perception(GRID),
    )
    assert reward("faithful").score(sudoku, context(SUDOKU)) == [[1.0, 0.0, 0.0, 0.0, 0.0]]
    coloring = groups_of(prompt_of(COLORING, MISSED), response(GRAPH, COLORED), response(TWO_SIDED, COLORED), response("no graph", COLORED))
    assert reward("faithful").score(coloring, context(COLORING)) == [[1.0, 0.0, 0.0]]
    cut = groups_of(prompt_of(SUDOKU, GRID), response(GRID, SOLVED), finished=False)
    assert reward("faithful").score(cut, context(SUDOKU)) == [[0.0]]


@pytest.mark.parametrize(("task", "percept"), [(SUDOKU, GRID), (COLORING, GRAPH)])
def test_confidence_is_the_geometric_mean_over_the_perception(task: Any, percept: str, reward: Any, context: Any, groups_of: Any) -> None:
    options = {"logprobs": (math.log(1 / 2), math.log(1 / 8), math.log(0.9)), "labels": (P, P, R)}
    [[sure, unreadable]] = reward("confidence").score(groups_of(prompt_of(task, percept), response(percept), "?", **options), context(task))
    assert (sure, unreadable) == (pytest.approx(1 / 4), 0.0)  # sqrt(1/2 * 1/8); what is reasoned does not count.
    assert reward("confidence").score(groups_of(prompt_of(task, percept), response(percept), "?", logprobs=None), context(task)) == [
        [None, 0.0]
    ]


# image_dependence


@pytest.mark.parametrize(("task", "percept"), [(SUDOKU, GRID), (COLORING, GRAPH)])
def test_dependence_is_how_much_likelier_the_picture_makes_the_percept(
    task: Any, percept: str, reward: Any, context: Any, groups_of: Any
) -> None:
    prompt = prompt_of(task, percept)
    calls = []

    def logprobs(prompts: Any, rollouts: Any) -> Any:
        calls.append(prompts)
        assert [rollout.response.percept for rollout in rollouts] == [percept, percept] * 2
        # With the picture, then without: tokens of the first are 4 and 1 times likelier (2 in the geometric mean), those of the second
        # half as likely. The last token is reasoning.
        return [[-1.0, -1.0, -9.0], [-2.0, -2.0, -9.0], [-1.0 - math.log(4), -1.0, 0.0], [-2.0 + math.log(2)] * 2 + [0.0]]

    groups = groups_of(prompt, response(percept), "unreadable", response(percept), logprobs=None, labels=(P, P, R))
    scores = reward("image_dependence").score(groups, context(task, policy=SimpleNamespace(logprobs=logprobs)))
    assert scores == [[pytest.approx(1 - 1 / 2), 0.0, 0.0]]

    [[*pictured, flat, _]] = calls
    assert pictured == [prompt, prompt]
    assert (flat.key, flat.question) == (prompt.key, prompt.question)
    shown, blank = (np.asarray(Image.open(io.BytesIO(picture))) for picture in (prompt.image, flat.image))
    assert blank.shape == shown.shape and blank.min() == blank.max() == round(shown.mean())


# augmentation


@pytest.mark.parametrize(("task", "percept", "other", "shared"), [(SUDOKU, GRID, SLIP, 15 / 16), (COLORING, GRAPH, MISSED, 4 / 5)])
def test_augmentation_is_the_mean_agreement_with_what_the_views_show(
    task: Any, percept: str, other: str, shared: float, reward: Any, context: Any, groups_of: Any
) -> None:
    answers = {0: [percept, other], 1: [other, "unreadable"], 2: [None, None]}  # Of each prompt's two views.
    prompts = [prompt_of(task, percept, index) for index in range(3)]
    groups = [groups_of(prompt, response(percept), response(other), "?")[0] for prompt in prompts]

    def percepts(views: Any) -> Any:
        assert [view.key.index for view in views] == [0, 0, 1, 1, 2, 2]
        return [answers[view.key.index].pop(0) for view in views]

    scores = reward("augmentation").score(groups, context(task, policy=SimpleNamespace(percepts=percepts)))
    both = (1 + shared) / 2
    assert scores == [pytest.approx([both, both, 0.0]), pytest.approx([shared, 1.0, 0.0]), [None, None, 0.0]]


def test_views_differ_a_little_and_the_key_decides_how(reward: Any) -> None:
    prompt, other = prompt_of(COLORING, GRAPH), prompt_of(COLORING, GRAPH, index=1)
    views = [reward("augmentation").view(prompt, number) for number in range(2)]
    assert views == [reward("augmentation").view(prompt, number) for number in range(2)]
    assert len({views[0].image, views[1].image, prompt.image, reward("augmentation").view(other, 0).image}) == 4
    shown = read_pixels(prompt.image)
    assert all(read_pixels(view.image).shape == shown.shape for view in views)
    assert correlation(read_pixels(reward("augmentation", shift_frac=0.0).view(prompt, 0).image), shown) > 0.8
    still = reward("augmentation", shift_frac=0.0, tint=0.0, noise=0.0).view(prompt, 0)
    assert np.array_equal(read_pixels(still.image), shown)


def test_a_shift_repeats_the_border_and_loses_no_other_pixel(reward: Any) -> None:
    pixels = np.ones((50, 50, 3))
    pixels[20:30, 20:30] = 0.0
    prompt = Prompt(key=SampleKey(task="t", split="s", seed=0, index=3), image=write_pixels(pixels), question="Q")
    shifted = read_pixels(reward("augmentation", shift_frac=0.1, tint=0.0, noise=0.0).view(prompt, 0).image)
    assert shifted.sum() == pixels.sum() and not np.array_equal(shifted, pixels)


# No picture


@pytest.mark.parametrize("name", ["rerender", "image_dependence", "augmentation"])
def test_a_prompt_without_a_picture_has_no_score(name: str, reward: Any, context: Any, groups_of: Any) -> None:
    text_prompt = Prompt(key=SampleKey(task="sudoku", split="test", seed=0, index=0), image=None, question=f"Q\n{GRID}")
    assert reward(name).score(groups_of(text_prompt, response(GRID), "unreadable"), context(SUDOKU)) == [[None, 0.0]]


@pytest.mark.parametrize(
    ("name", "option", "value", "message"),
    [
        ("oracle", "grading", "lenient", "reward.grading must be one of exact, graded, got 'lenient'"),
        ("consensus", "vote", "mean", "reward.vote must be one of soft, majority, got 'mean'"),
        ("rerender", "look", "any", "reward.look must be one of same, other, got 'any'"),
        ("rerender", "num_looks", 0, "reward.num_looks must be at least 1, got 0"),
        ("rerender", "blur_frac", 2.0, "reward.blur_frac must lie in"),
        ("augmentation", "num_views", 0, "reward.num_views must be at least 1, got 0"),
        ("augmentation", "noise", -0.1, "reward.noise must be at least 0, got -0.1"),
        ("augmentation", "tint", 1.5, "reward.tint must lie in"),
    ],
)
def test_a_wrong_option_is_refused_by_name(name: str, option: str, value: Any, message: str, reward: Any) -> None:
    with pytest.raises(ValueError, match=message):
        reward(name, **{option: value})
