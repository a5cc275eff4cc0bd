"""Reward statistics of a step, worked by hand."""

import math
from collections.abc import Callable

import pytest

from percasym.diagnosis.stream import reward_statistics, weighted_rewards
from percasym.types import Grade

ROOT3 = 1 / math.sqrt(3)


@pytest.fixture
def numbers(make_grade: Callable[..., Grade]) -> dict[str, float]:
    # Two prompts of two rollouts. a_p = 0 1 | 0 1, a = 0 0 | 0 1, faithful = none, 0 | 0 1, a_r = 0 and 1.
    grades = [
        [make_grade(False, False), make_grade(True, False, faithful=False)],
        [make_grade(False, False, faithful=False), make_grade(True, True, faithful=True)],
    ]
    rewards = {"consensus": [[0.0, 1.0], [None, 0.5]], "valid_state": [[1.0, 1.0], [1.0, 1.0]], "rerender": [[None, None], [None, None]]}
    return reward_statistics(grades, rewards, total=[[0.0, 0.5], [0.0, 1.0]], reasoning=[0.0, 1.0])


def test_mean_spread_and_gaps_of_each_component_and_of_the_total(numbers: dict[str, float]) -> None:
    def of(name: str) -> tuple[float | None, ...]:
        return tuple(numbers.get(f"reward/{name}/{what}") for what in ("mean", "std", "zero_variance", "not_measurable"))

    assert of("outcome") == pytest.approx((0.25, math.sqrt(3 / 16), 0.5, 0.0))
    assert of("perception") == pytest.approx((0.5, 0.5, 0.0, 0.0))
    assert of("total") == pytest.approx((0.375, math.sqrt(1.25 / 4 - 0.375**2), 0.0, 0.0))
    assert of("consensus") == pytest.approx((0.5, math.sqrt(1 / 6), 0.0, 0.25))  # Of 0, 1 and .5.
    assert of("valid_state") == (1.0, 0.0, 1.0, 0.0)
    assert of("rerender") == (None, None, 1.0, 1.0)


def test_the_outcome_beside_perception_reasoning_and_faithfulness(numbers: dict[str, float]) -> None:
    # As in test_correlations: 1/sqrt(3) over all, 1/sqrt(2) within; both prompts have a_p = .5, so nothing across.
    assert numbers["corr/outcome/perception"] == pytest.approx(ROOT3)
    assert numbers["corr/outcome/perception/within"] == pytest.approx(1 / math.sqrt(2))
    assert "corr/outcome/perception/across" not in numbers
    assert numbers["corr/outcome/reasoning/across"] == pytest.approx(1.0)  # a is 0 and .5 where a_r is 0 and 1.
    assert numbers["corr/outcome/faithful"] == pytest.approx(1.0)  # 0 0 1 beside 0 0 1: one rollout has no faithfulness.


def test_each_reward_beside_perception(numbers: dict[str, float]) -> None:
    # consensus 0 1 | . .5 beside a_p 0 1 | . 1: deviations -.5 .5 0 and -2/3 1/3 1/3, so r = .5 / sqrt(.5 * 2/3); within, 1 (the lone
    # rollout of the second prompt has no score). Group means .5 .5 and .5 1: the reward's are equal.
    assert numbers["corr/consensus/perception/within"] == pytest.approx(1.0)
    assert numbers["corr/consensus/perception"] == pytest.approx(0.5 / math.sqrt(0.5 * 2 / 3))
    assert "corr/consensus/perception/across" not in numbers


def test_what_does_not_exist_is_not_logged(numbers: dict[str, float]) -> None:
    assert all(map(math.isfinite, numbers.values()))
    assert not any(key.startswith(("corr/valid_state", "corr/rerender")) for key in numbers)


def test_raw_reward_weight_and_weighted_reward_are_apart() -> None:
    # Means .5 and .25; variances within groups .25 and 0 (perception), 0 and .25 (outcome).
    found = weighted_rewards([[1, 0], [0.5, 0.5]], [[0, 0], [0, 1]], 0.3)
    assert [found[f"trained/perception/{what}"] for what in ("raw", "weight", "weighted")] == pytest.approx([0.5, 0.3, 0.15])
    assert [found[f"trained/outcome/{what}"] for what in ("raw", "weight", "weighted")] == pytest.approx([0.25, 0.7, 0.175])
    spread = math.sqrt(0.125)
    assert [found[f"trained/{name}/spread"] for name in ("perception", "outcome")] == pytest.approx([0.3 * spread, 0.7 * spread])


def test_without_counterfactual_rollouts_reasoning_is_not_logged(make_grade: Callable[..., Grade]) -> None:
    grades = [[make_grade(True, True), make_grade(False, False)]]
    assert "corr/outcome/reasoning/across" not in reward_statistics(grades, {}, total=[[1.0, 0.0]])
    assert "corr/outcome/reasoning/across" not in reward_statistics(grades, {}, total=[[1.0, 0.0]], reasoning=[None])
