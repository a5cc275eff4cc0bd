"""The metrics against numbers worked by hand, on a task small enough to see through."""

import math
import random
from dataclasses import dataclass, replace

import pytest

from percasym import metrics
from percasym.spans.grammar import Grammar
from percasym.tasks.base import SyntheticTask
from percasym.types import Completion, Fault, Prompt, Rollout, SampleKey, Span

GRAMMAR = Grammar()


@dataclass(frozen=True)
class Sum(SyntheticTask):
    """Percept: two digits; answer: their sum."""

    name: str = "sum"

    def parse(self, text: str) -> str | None:
        digits = text.strip()
        return digits if len(digits) == 2 and digits.isdigit() else None

    def agreement(self, truth: str, stated: str) -> float:
        return sum(a == b for a, b in zip(truth, stated, strict=True)) / 2

    def verify(self, percept: str, answer: str) -> bool:
        return answer == str(int(percept[0]) + int(percept[1]))


def rollout_of(text: str, *, finished: bool = True) -> Rollout:
    prompt = Prompt(key=SampleKey(task="sum", split="test", seed=0, index=0), image=None, question="?")
    completion = Completion(ids=(1,), logprobs=None, finished=finished)
    return Rollout(prompt=prompt, completion=completion, response=GRAMMAR.read(text.encode(), finished=finished), labels=(Span.reasoning,))


def stated(percept: str, answer: str) -> Rollout:
    demonstration = GRAMMAR.demonstrate(percept, "so ", answer)
    return rollout_of(demonstration.perception + demonstration.reasoning)


def test_a_right_response_is_right_in_everything() -> None:
    graded = metrics.grade(Sum(), "34", stated(" 34\n", "7"))
    assert (graded.perception, graded.perception_graded, graded.outcome, graded.faithful, graded.faults) == (True, 1.0, True, True, ())


def test_reasoning_well_on_a_wrong_percept_is_faithful_but_not_right() -> None:
    graded = metrics.grade(Sum(), "34", stated("35", "8"))
    assert (graded.perception, graded.perception_graded, graded.outcome, graded.faithful) == (False, 0.5, False, True)


def test_a_right_answer_counts_although_the_percept_is_wrong() -> None:
    graded = metrics.grade(Sum(), "34", stated("35", "7"))
    assert (graded.perception, graded.outcome, graded.faithful) == (False, True, False)


def test_a_percept_that_the_task_cannot_read_voids_the_answer_and_is_named() -> None:
    graded = metrics.grade(Sum(), "34", stated("3 and 4", "7"))
    assert (graded.perception, graded.perception_graded, graded.outcome, graded.faithful) == (False, 0.0, False, None)
    assert graded.faults == (Fault.percept_not_readable,)


@pytest.mark.parametrize(
    ("text", "perception", "faithful"),
    [
        ("so <answer>7</answer>", False, None),
        ("<perception>34</perception><perception>34</perception><answer>7</answer>", False, None),
        ("<perception>34</perception><answer>7</answer><answer>7</answer>", True, False),
        ("<perception>34</perception><answer>7</answer> I mean 8", True, False),
        ("<perception>34</perception> so 7", True, False),
        ("I see <perception>34</perception><answer>7</answer>", False, None),
    ],
)
def test_what_is_not_one_perception_and_one_answer_has_no_right_answer(text: str, perception: bool, faithful: bool | None) -> None:
    graded = metrics.grade(Sum(), "34", rollout_of(text))
    assert graded.faults
    assert not graded.outcome
    assert (graded.perception, graded.faithful) == (perception, faithful)


def test_a_truncated_response_keeps_its_percept_and_loses_its_answer() -> None:
    graded = metrics.grade(Sum(), "34", rollout_of("<perception>34</perception><answer>7</answer>", finished=False))
    assert (graded.perception, graded.outcome, graded.faults) == (True, False, (Fault.truncated,))


class Remembered(Sum):
    """The same, collected: the answer of each sample was written down, and nothing follows from another percept."""

    lacks = ("draw", "solve", "valid", "verify")

    def right(self, key: SampleKey, truth: str, answer: str) -> bool:
        return answer == ("7" if key.index == 0 else "seven")

    def about(self) -> dict:
        return {}

    def verify(self, percept: str, answer: str) -> bool:
        raise AssertionError("nobody can")


def test_a_collected_sample_has_its_own_answer_and_no_faithfulness_on_a_wrong_percept() -> None:
    correct, misread = (metrics.grade(Remembered(), "34", stated(percept, "7")) for percept in ("34", "35"))
    assert (correct.perception, correct.outcome, correct.faithful) == (True, True, True)
    assert (misread.perception, misread.outcome, misread.faithful) == (False, True, None)
    wrong = metrics.grade(Remembered(), "34", stated("34", "8"))
    assert (wrong.outcome, wrong.faithful) == (False, False)


def test_wilson_interval_of_eight_in_ten() -> None:
    # z = 1.96: (8 + 1.9207) / (10 + 3.8415) = .71674; 1.96 * sqrt(10 * .8 * .2 + .96036) / 13.8415 = .22658.
    estimate = metrics.proportion([True] * 8 + [False] * 2)
    assert estimate.mean == 0.8
    assert estimate.n == 10
    assert estimate.ci95 == pytest.approx((0.49016, 0.94332), abs=1e-4)


def test_no_success_leaves_room_for_some() -> None:
    # n = 10, none right: the upper end is z^2 / (n + z^2) = 3.8415 / 13.8415 = .27753.
    assert metrics.proportion([False] * 10).ci95 == (0.0, pytest.approx(0.27753, abs=1e-5))
    assert metrics.proportion([True] * 10).ci95 == (pytest.approx(0.72247, abs=1e-5), 1.0)


def test_what_is_not_measurable_is_not_counted() -> None:
    assert metrics.proportion([True, None, False, None]).n == 2
    assert metrics.average([0.5, None]).n == 1
    assert metrics.gain([True, None, False], [True, True, None]).n == 1


@pytest.mark.parametrize("estimate", [metrics.proportion([]), metrics.average([None]), metrics.gain([None], [True])])
def test_nothing_measured_is_nan_not_zero(estimate: object) -> None:
    assert estimate.n == 0
    assert math.isnan(estimate.mean)
    assert all(map(math.isnan, estimate.ci95))


def test_bootstrap_interval_of_half_zeros_and_ones_is_near_the_normal_one() -> None:
    # Standard error .5 / sqrt(100) = .05, so .5 +- .098; means of 100 such values come in steps of .01.
    estimate = metrics.average([0.0, 1.0] * 50)
    assert estimate.mean == 0.5
    assert estimate.ci95 == pytest.approx((0.402, 0.598), abs=0.015)
    assert estimate == metrics.average([0.0, 1.0] * 50)


def test_paired_gain_of_six_samples_that_improved_and_one_that_got_worse() -> None:
    # n = 20, 6 up, 1 down: mean 5/20. With half a pair in each cell: centre 5/22 = .22727,
    # reach 1.96 * sqrt(7 + 1 - 25/22) / 22 = 1.96 * 2.61986 / 22 = .23340.
    before = [False] * 6 + [True] + [True] * 5 + [False] * 8
    after = [True] * 6 + [False] + [True] * 5 + [False] * 8
    estimate = metrics.gain(before, after)
    assert estimate.mean == 0.25
    assert estimate.n == 20
    assert estimate.ci95 == pytest.approx((-0.00613, 0.46067), abs=1e-4)


def test_pairing_is_worth_more_than_two_separate_intervals() -> None:
    before, after = [True, False] * 100, [True, False] * 90 + [True, True] * 10
    low, high = metrics.gain(before, after).ci95
    apart = metrics.proportion(before).ci95, metrics.proportion(after).ci95
    assert apart[0][1] > apart[1][0], "the separate intervals overlap"
    assert 0 < low < high < 0.1, "the paired one excludes zero"


def test_no_change_at_all_still_has_a_width() -> None:
    # n = 8: reach 1.96 * sqrt(1) / 10.
    assert metrics.gain([True] * 8, [True] * 8).ci95 == pytest.approx((-0.196, 0.196), abs=1e-4)


def test_graded_gains_use_the_differences() -> None:
    before = [index / 10 for index in range(10)]
    estimate = metrics.gain(before, [value + 0.25 for value in before])
    assert estimate.mean == pytest.approx(0.25)
    assert estimate.ci95 == pytest.approx((0.25, 0.25))


def test_a_gain_over_different_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="the same samples before and after, got 2 and 3"):
        metrics.gain([True, True], [True, True, False])


def test_verdicts_do_not_depend_on_who_sampled() -> None:
    rollout = stated("34", "7")
    other = replace(rollout, completion=replace(rollout.completion, ids=(5, 6, 7)))
    assert metrics.grade(Sum(), "34", rollout) == metrics.grade(Sum(), "34", other)


def test_values_of_puzzles_of_their_own_have_the_ordinary_intervals() -> None:
    verdicts, graded, own = [True, False, True, True, None], [0.1, 0.5, 0.9, 0.2, None], list("abcde")
    assert metrics.proportion(verdicts, own) == metrics.proportion(verdicts)
    assert metrics.average(graded, own) == metrics.average(graded)
    assert metrics.gain([False] * 5, verdicts, own) == metrics.gain([False] * 5, verdicts)


def test_a_puzzle_that_is_asked_again_and_answered_alike_is_no_news() -> None:
    # Ten puzzles, six right; each in four samples. Their variance by puzzles is 10/9 * 4^2 * 2.4, by values 40/39 * 4 * 2.4:
    # the design effect is 4 * (10/9) / (40/39) = 13/3, so 40 values are worth 120/13 = 9.23.
    once, puzzles = [True] * 6 + [False] * 4, [index // 4 for index in range(40)]
    four_times = metrics.proportion([once[puzzle] for puzzle in puzzles], puzzles)
    z2, n, share = metrics.Z95**2, 120 / 13, 0.6
    centre, reach = (n * share + z2 / 2) / (n + z2), metrics.Z95 * math.sqrt(n * share * (1 - share) + z2 / 4) / (n + z2)
    assert four_times.mean == pytest.approx(share)
    assert four_times.n == 40
    assert four_times.ci95 == pytest.approx((centre - reach, centre + reach))
    clustered = metrics.average([float(once[puzzle]) for puzzle in puzzles], puzzles)
    assert clustered.ci95 == metrics.average([float(value) for value in once]).ci95
    assert metrics.gain([False] * 40, [once[puzzle] for puzzle in puzzles], puzzles).ci95[0] < metrics.gain([False] * 40, once * 4).ci95[0]


def test_puzzles_that_are_answered_now_so_now_so_cost_nothing() -> None:
    values, puzzles = [True, False] * 20, [index // 2 for index in range(40)]  # Each puzzle once right and once wrong.
    assert metrics.proportion(values, puzzles) == metrics.proportion(values)


def test_where_all_are_right_a_puzzle_counts_once() -> None:
    assert metrics.proportion([True] * 12, [0, 1, 2] * 4).ci95 == metrics.proportion([True] * 3).ci95
    low, high = metrics.proportion([True, False] * 6, [0] * 12).ci95
    assert high - low > 0.75, "one puzzle carries almost no information about others"


def test_the_interval_holds_the_truth_where_samples_repeat_puzzles() -> None:
    # 1,000 evaluations of 96 samples of 24 puzzles, each solved or not whatever its picture, a third of them solved.
    rng, held, naive = random.Random(0), 0, 0
    for _ in range(1000):
        solved = [rng.random() < 1 / 3 for _ in range(24)]
        puzzles = [rng.randrange(24) for _ in range(96)]
        values = [solved[puzzle] for puzzle in puzzles]
        low, high = metrics.proportion(values, puzzles).ci95
        held += low <= 1 / 3 <= high
        low, high = metrics.proportion(values).ci95
        naive += low <= 1 / 3 <= high
    assert held >= 930
    assert naive < 750
