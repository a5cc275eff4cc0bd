"""Evaluation of sampled answers: values of prompts, what is paired, and intervals clustered by puzzle."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from percasym import statistics
from percasym.config.settings import Evaluation
from percasym.models import locate
from percasym.models.qwen3vl import Qwen3VL
from percasym.tasks.sudoku.task import Sudoku
from percasym.training import sampled as module
from percasym.training.evaluate import EvalResult
from percasym.training.sampled import SAMPLED_METRICS, evaluate_sampled
from percasym.types import Grade

SETTINGS = Evaluation(num_samples=8, num_curve_samples=1, max_new_tokens=8, batch_size=8, num_sampled=4, samples_per_prompt=2, seed=5)
FROM_PICTURE = {0: [(1, 1, 1), (0, 0, 0)], 1: [(1, 0, 0), (1, 0, None)], 2: [(0, 0, None)] * 2, 3: [(1, 1, 1)] * 2}
"""a_p, a and faithfulness of two answers to each prompt."""
FROM_PREFIX = {0: [1, 1], 1: [1, 0], 2: [0, 0], 3: [1, 1]}
"""a of two answers to each prompt with p* forced."""


class Sampler:
    """A rollout engine whose rollouts are their place in the tables above."""

    def __init__(self) -> None:
        self.calls = []

    def generate(self, prompts, *, group_size, seed, prompt_rows=None, forced=None, advance=lambda rows: None):
        self.calls.append((group_size, seed, [prompt.key for prompt in prompts], forced is not None))
        advance(group_size * len(prompts))
        return [[SimpleNamespace(index=prompt.key.index, sibling=i, forced=forced is not None) for i in range(2)] for prompt in prompts]


@pytest.fixture
def graded(monkeypatch: pytest.MonkeyPatch) -> None:
    def grade(task, truth, rollout):
        seen, right, faithful = FROM_PICTURE[rollout.index][rollout.sibling]
        right = FROM_PREFIX[rollout.index][rollout.sibling] if rollout.forced else right
        known = None if faithful is None else bool(faithful)
        return Grade(perception=bool(seen), perception_graded=0.5 + seen / 2, outcome=bool(right), faithful=known, faults=())

    monkeypatch.setattr(module.metrics, "grade", grade)


def evaluated(sampler: Sampler, **more) -> EvalResult:
    family = Qwen3VL(path=locate.packaged("qwen3vl"))
    return evaluate_sampled(sampler=sampler, family=family, task=Sudoku(), settings=SETTINGS, **more)


@pytest.mark.usefixtures("graded")
def test_the_value_of_a_prompt_is_the_mean_over_its_answers() -> None:
    sampler, advanced = Sampler(), []
    found = evaluated(sampler, advance=advanced.append)
    assert found.verdicts == {
        "sampled_end_to_end": [0.5, 0.0, 0.0, 1.0],
        "sampled_perception": [0.5, 1.0, 0.0, 1.0],
        "sampled_perception_graded": [0.75, 1.0, 0.5, 1.0],
        "sampled_reasoning": [1.0, 0.5, 0.0, 1.0],
        "sampled_faithful": [0.5, 0.0, None, 1.0],
    }
    assert tuple(found.verdicts) == SAMPLED_METRICS
    assert found.records[0]["verdicts"]["reasoning"] == [1, 1]
    assert sum(advanced) == 2 * 2 * 4
    (size, seed, keys, forced), (_, _, same_keys, forced_too) = sampler.calls
    assert (size, seed, forced, forced_too) == (2, 5, False, True)
    assert keys == same_keys
    assert {(key.split, key.seed) for key in keys} == {("test", 5)}  # Unseen in training, and the same whatever the run's own seed is.


@pytest.mark.usefixtures("graded")
def test_intervals_are_of_prompts_clustered_by_puzzle_and_gains_are_paired() -> None:
    after = evaluated(Sampler())
    after = EvalResult(verdicts=after.verdicts, puzzles=["one", "one", "other", "third"], records=after.records)
    values = after.verdicts["sampled_end_to_end"]
    assert after.metrics["sampled_end_to_end"] == statistics.proportion(values, after.puzzles) != statistics.proportion(values)
    before = EvalResult(verdicts=after.verdicts | {"sampled_end_to_end": [0.0, 0.5, 0.0, 0.5]}, puzzles=after.puzzles, records=())
    assert after.gain_over(before)["sampled_end_to_end"] == statistics.gain([0.0, 0.5, 0.0, 0.5], values, after.puzzles)


@pytest.mark.usefixtures("graded")
def test_a_greedy_result_carries_the_sampled_one() -> None:
    sampled = evaluated(Sampler())
    greedy = {name: [True] for name in ("end_to_end", "perception")}
    both = EvalResult(verdicts=greedy, puzzles=["one"], records=(), sampled=sampled)
    assert list(both.metrics) == ["end_to_end", "perception", *SAMPLED_METRICS]
    assert both.gain_over(both)["sampled_reasoning"].mean == 0.0
    assert "sampled_reasoning" not in both.gain_over(EvalResult(verdicts=greedy, puzzles=["one"], records=()))


@pytest.mark.usefixtures("graded")
def test_ranks_evaluate_their_own_prompts() -> None:
    whole, halves = evaluated(Sampler()).records, [evaluated(Sampler(), indices=range(rank, 4, 2)).records for rank in range(2)]
    assert [record for pair in zip(*halves, strict=True) for record in pair] == whole
