"""The metrics against numbers worked by hand, on a task small enough to see through."""

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


def test_verdicts_do_not_depend_on_who_sampled() -> None:
    rollout = stated("34", "7")
    other = replace(rollout, completion=replace(rollout.completion, ids=(5, 6, 7)))
    assert metrics.grade(Sum(), "34", rollout) == metrics.grade(Sum(), "34", other)
