"""The predicted weight of a perception reward: against correlations computed another way, and on regimes of known answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from percasym.diagnosis.advice import ALONE, coupling_of_outcome, variance_advice, weight_advice
from percasym.diagnosis.diagnose import diagnose
from percasym.diagnosis.rollout_file import RolloutGroup
from percasym.diagnosis.weight import predicted_weight
from percasym.statistics import gain


def drawn(seed: int, *, reasons: float, num: int = 64, size: int = 8):
    """a_p, a and faithfulness of groups: an answer is right if the percept is and the reasoning too, or by luck."""
    rng = np.random.default_rng(seed)
    seen, faithful, luck = rng.random((num, size)) < 0.5, rng.random((num, size)) < reasons, rng.random((num, size)) < 0.1
    solved = (seen & faithful) | luck
    return tuple(array.astype(float).tolist() for array in (seen, solved, faithful))


def within(x, y) -> float:
    """r within groups, by numpy's own formula."""
    left, right = (np.array(side) - np.mean(side, axis=1, keepdims=True) for side in (x, y))
    return float(np.corrcoef(left.ravel(), right.ravel())[0, 1])


@pytest.mark.parametrize("seed", range(5))
def test_at_the_predicted_weight_the_reward_goes_together_with_seeing_and_reasoning_alike(seed: int) -> None:
    seen, solved, faithful = drawn(seed, reasons=0.3)
    weight = predicted_weight(seen, solved, seen, faithful, resamples=0).weight
    assert 0 < weight < 1
    mixed = weight * np.array(seen) + (1 - weight) * np.array(solved)
    assert within(mixed, seen) == pytest.approx(within(mixed, faithful), abs=1e-9)
    assert within(solved, faithful) > within(solved, seen)


@pytest.mark.parametrize("seed", range(5))
def test_where_the_outcome_is_coupled_to_seeing_no_weight_is_needed(seed: int) -> None:
    seen, solved, faithful = drawn(seed, reasons=0.9)
    assert within(solved, seen) > within(solved, faithful)
    found = predicted_weight(seen, solved, seen, faithful)
    assert (found.weight, found.undefined) == (0.0, 0.0)
    assert found.ci95[1] < 0.1


def test_a_reward_that_is_noise_has_no_weight() -> None:
    seen, solved, faithful = drawn(0, reasons=0.3)
    found = predicted_weight(faithful, solved, seen, faithful)  # It pays reasoning, whatever it is called.
    assert math.isnan(found.weight)
    assert found.undefined > 0.5
    assert math.isnan(found.ci95[0])


def test_the_interval_resamples_whole_puzzles() -> None:
    seen, solved, faithful = drawn(1, reasons=0.3)
    alone = predicted_weight(seen, solved, seen, faithful)
    four = [part * 4 for part in (seen[:16], solved[:16], faithful[:16])]
    copies = predicted_weight(four[0], four[1], four[0], four[2], puzzles=[str(i) for i in range(16)] * 4)
    blind = predicted_weight(four[0], four[1], four[0], four[2])
    assert alone.ci95[0] < alone.weight < alone.ci95[1]
    assert copies.weight == blind.weight
    assert copies.ci95[1] - copies.ci95[0] > 1.5 * (blind.ci95[1] - blind.ci95[0])


def test_groups_may_differ_in_size_and_a_missing_score_counts_zero() -> None:
    seen, solved, faithful = [[1, 1, 0, 0], [1, 0]], [[1, 0, 1, 0], [1, 0]], [[1, 0, 1, None], [1, None]]
    zeros = [[1, 0, 1, 0], [1, 0]]
    assert predicted_weight(seen, solved, seen, faithful, resamples=0) == predicted_weight(seen, solved, seen, zeros, resamples=0)
    assert predicted_weight(seen[:1], solved[:1], seen[:1], zeros[:1], resamples=0).weight == 0.5


def test_few_prompts_have_no_interval() -> None:
    seen, solved, faithful = (part[:7] for part in drawn(0, reasons=0.3))
    assert math.isnan(predicted_weight(seen, solved, seen, faithful).ci95[0])


# What is said


def with_reasoning(groups: list[RolloutGroup], shares: list[float]) -> list[RolloutGroup]:
    return [replace(group, reasoning=share) for group, share in zip(groups, shares, strict=True)]


def test_the_advice_names_the_weight_the_gain_of_the_true_percept_and_that_it_is_a_prediction(groups: list[RolloutGroup]) -> None:
    found = diagnose(groups)
    outcomes = [float(np.mean([grade.outcome for grade in group.grades])) for group in groups]
    assert found.headroom == gain(outcomes, [group.reasoning for group in groups], [group.puzzle for group in groups])
    said = weight_advice(found)
    assert f"a gains {100 * found.headroom.mean:+.1f} [" in said
    assert "reward=oracle" in said
    assert "prediction" in said
    (oracle,) = (reward for reward in found.rewards if reward.name == "oracle")
    assert str(oracle.weight) in said


def test_where_the_true_percept_adds_nothing_the_advice_is_the_outcome_alone(groups: list[RolloutGroup]) -> None:
    outcomes = [float(np.mean([grade.outcome for grade in group.grades])) for group in groups]
    said = weight_advice(diagnose(with_reasoning(groups, outcomes)))
    assert said.startswith("Take w = 0 (balance=none): with p* given, a changes by +0.0 [")


def test_too_few_prompts_give_no_weight(make_groups: Callable[..., list[RolloutGroup]]) -> None:
    assert weight_advice(diagnose(make_groups(4))).startswith("4 prompts say too little to predict a weight")


def test_rewards_that_agree_throughout_most_groups_are_named(groups: list[RolloutGroup]) -> None:
    said = variance_advice(diagnose(groups))
    assert "100% of groups agree in valid_state" in said
    assert "cannot teach" in said
    assert "consensus" not in said
    varied = [replace(group, rewards={"oracle": group.rewards["consensus"]}) for group in groups]
    assert "oracle" not in variance_advice(diagnose(varied))


def test_groups_that_a_reward_would_train_alone_are_counted_and_named(groups: list[RolloutGroup]) -> None:
    """Where all answers fail and the percepts differ, the mixture is the perception reward, whatever its weight."""
    (oracle,) = (reward for reward in diagnose(groups).rewards if reward.name == "oracle")
    by_hand = [len({g.perception for g in group.grades}) > 1 and len({g.outcome for g in group.grades}) == 1 for group in groups]
    assert oracle.alone == pytest.approx(np.mean(by_hand))
    failed = [replace(group, grades=tuple(replace(grade, outcome=False) for grade in group.grades)) for group in groups]
    some = [fails if number % 4 else group for number, (fails, group) in enumerate(zip(failed, groups, strict=True))]
    for judged in (groups, some, failed):
        found = diagnose(with_reasoning(judged, [1.0] * len(judged)))
        (oracle,) = (reward for reward in found.rewards if reward.name == "oracle")
        said = "reward=oracle varies and the outcome does not" in weight_advice(found)
        assert said == (oracle.weight.weight > 0 and oracle.alone > ALONE)
        assert said == (judged is some), "without a right answer no weight is predicted"


def test_the_coupling_to_reasoning_is_stated_within_prompts_too(groups: list[RolloutGroup]) -> None:
    found = diagnose(groups)
    assert f"r(a, faithful) = {found.outcome_faithful.within}" in coupling_of_outcome(found)
