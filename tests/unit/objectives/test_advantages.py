"""Advantages against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from percasym.objectives.advantages import EPS, group_normalized, mixed, on_spans, uninformative, zero_variance
from percasym.types import UNSUPERVISED, Span

P, R, NONE = Span.perception, Span.reasoning, UNSUPERVISED
MIXINGS = ["sum_then_normalize", "normalize_then_sum"]


def rewards(*groups: list[float]) -> torch.Tensor:
    return tensor(groups, dtype=torch.float64)


def test_an_advantage_is_the_distance_to_the_siblings_in_their_standard_deviations():
    # Mean 1/4; squared distances 9/16 + 3/16 = 3/4 over G - 1 = 3, so the deviation is 1/2: (3/4) / (1/2) and (-1/4) / (1/2).
    expected = rewards([1.5, -0.5, -0.5, -0.5]) * 0.5 / (0.5 + EPS)
    assert_close(group_normalized(rewards([1, 0, 0, 0]), scale=True), expected)
    assert_close(group_normalized(rewards([1, 0, 0, 0]), scale=False), rewards([0.75, -0.25, -0.25, -0.25]))


@pytest.mark.parametrize("scale", [True, False])
def test_every_group_is_compared_with_itself_alone(scale):
    both, alone = rewards([1, 0, 0, 0], [0.9, 1.0, 0.8, 0.9]), rewards([0.9, 1.0, 0.8, 0.9])
    assert_close(group_normalized(both, scale)[1:], group_normalized(alone, scale))
    assert_close(group_normalized(both, scale).sum(1), rewards([0, 0])[0], atol=1e-12, rtol=0)


@pytest.mark.parametrize("scale", [True, False])
def test_equal_rewards_have_advantages_of_exactly_zero(scale):
    same = rewards([0.1, 0.1, 0.1], [0.0, 0.0, 0.0])
    assert (same - same.mean(1, keepdim=True)).count_nonzero() > 0  # Rounding alone would leave something.
    assert group_normalized(same, scale).count_nonzero() == 0


def test_zero_variance_is_exact_equality():
    sums = 0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1
    assert sums[0] != sums[1]
    assert zero_variance(rewards([*sums], [1.0, 1.0], [0.0, 1e-9])).tolist() == [False, True, False]


@pytest.mark.parametrize("weight", [0.1, 0.3, 0.5, 0.7, 1 / 3])
def test_a_mixture_of_equal_rewards_is_exactly_equal(weight):
    seen, solved = rewards([0.1] * 67, [1 / 3] * 67), rewards([1.0] * 67, [0.0] * 67)  # An odd length: vectors and their remainder.
    assert zero_variance(weight * seen + (1 - weight) * solved).all()


@pytest.mark.parametrize("scale", [True, False])
def test_rewards_that_differ_by_rounding_have_next_to_no_advantage(scale):
    assert group_normalized(rewards([0.1 + 0.2, 0.3, 0.3]), scale).abs().max() < 1e-11


def test_a_group_that_fails_throughout_is_replaced_though_its_mixed_reward_varies():
    seen, solved = rewards([1, 0, 0, 0], [0, 0, 1, 0]), rewards([0, 0, 0, 0], [1, 1, 1, 1])
    assert not zero_variance(0.3 * seen + 0.7 * solved).any()
    assert uninformative(seen, solved, 0.3, "outcome").tolist() == [True, True]
    assert uninformative(seen, solved, 0.3, "either").tolist() == [False, False]


def test_a_group_whose_components_cancel_in_the_mixture_is_kept():
    seen, solved = rewards([1, 0]), rewards([0, 1])
    assert zero_variance(0.5 * seen + 0.5 * solved).all()
    for by in ("outcome", "perception", "either"):
        assert uninformative(seen, solved, 0.5, by).tolist() == [False]


@pytest.mark.parametrize("by", ["outcome", "perception", "either"])
def test_a_reward_without_weight_does_not_decide_which_groups_are_replaced(by):
    seen, solved = rewards([1, 0], [1, 1]), rewards([0, 0], [0, 1])
    assert uninformative(seen, solved, 0.0, by).tolist() == [True, False]
    assert uninformative(seen, solved, 1.0, by).tolist() == [False, True]


@pytest.mark.parametrize("mixing", MIXINGS)
def test_a_weight_at_either_end_leaves_one_reward(mixing):
    seen, solved = rewards([1, 0, 0, 1], [1, 1, 1, 0]), rewards([0, 1, 0, 0], [0, 1, 1, 0])
    for weight, alone in ((1.0, seen), (0.0, solved)):
        expected = group_normalized(alone, scale=True)
        if mixing == "normalize_then_sum":
            expected = expected / (expected.std() + EPS)
        assert_close(mixed(seen, solved, weight, mixing, normalize=True), expected)


def test_a_sum_of_rewards_is_dominated_by_the_one_with_more_variance():
    seen, solved = rewards([0.6, 0.4, 0.6, 0.4]), rewards([0, 1, 1, 0])  # A graded percept that varies less than the answer.
    # 0.8 * seen + 0.2 * solved = (0.48, 0.52, 0.68, 0.32): the second beats its mean, 0.5, by its answer, though w = 0.8 is for percepts.
    assert mixed(seen, solved, 0.8, "sum_then_normalize", normalize=True)[0, 1] > 0
    # Each normalised alone, both rewards say +a or -a: 0.8 * (-a) + 0.2 * a.
    assert mixed(seen, solved, 0.8, "normalize_then_sum", normalize=True)[0, 1] < 0


def test_two_rewards_won_at_once_count_more_than_one_only_when_each_is_normalised_alone():
    # The example of GDPO: the second rollout earns one reward in the first group and both in the second.
    seen, solved = rewards([0, 1], [0, 1]), rewards([0, 0], [0, 1])
    first, second = mixed(seen, solved, 0.5, "sum_then_normalize", normalize=True)
    assert_close(first, second, rtol=1e-3, atol=0)
    first, second = mixed(seen, solved, 0.5, "normalize_then_sum", normalize=True)
    assert_close(2 * first, second)


def test_normalised_sums_have_one_deviation_over_the_whole_batch_whatever_the_weight():
    seen, solved = rewards([0, 1, 1, 0], [0, 1, 0, 0]), rewards([0, 0, 1, 0], [1, 1, 0, 0])
    for weight in (0.1, 0.5, 0.9):
        advantages = mixed(seen, solved, weight, "normalize_then_sum", normalize=True)
        assert float(advantages.std()) == pytest.approx(1, rel=1e-3)
        assert float(advantages.mean()) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("mixing", MIXINGS)
def test_groups_with_zero_variance_have_advantages_of_exactly_zero(mixing, normalize):
    seen, solved = rewards([1, 1, 1], [0, 1, 1]), rewards([0.1, 0.1, 0.1], [0, 0, 1])
    advantages = mixed(seen, solved, 0.3, mixing, normalize)
    assert advantages[0].count_nonzero() == 0
    assert advantages[1].count_nonzero() > 0
    assert mixed(seen[:1], solved[:1], 0.3, mixing, normalize).count_nonzero() == 0


@pytest.mark.parametrize("mixing", MIXINGS)
def test_rewards_that_pull_against_each_other_cancel(mixing):
    # R = 0.5 in both rollouts; and (+a, -a) plus (-a, +a) is 0: normalising first cannot rescue such a group.
    seen, solved = rewards([1, 0], [0, 1]), rewards([0, 1], [0, 1])
    assert mixed(seen, solved, 0.5, mixing, normalize=True)[0].count_nonzero() == 0


@pytest.mark.parametrize("mixing", MIXINGS)
def test_without_division_the_two_mixings_are_one(mixing):
    # Means and differences are linear: w (p - mean p) + (1 - w) (o - mean o). Here 0.25 * (1, 0) + 0.75 * (0, 0.4) - 0.275.
    advantages = mixed(rewards([1.0, 0.0]), rewards([0.0, 0.4]), 0.25, mixing, normalize=False)
    assert_close(advantages, rewards([-0.025, 0.025]))


def test_routed_advantages_reach_the_tokens_of_their_span():
    labels = tensor([[NONE, P, R, R], [NONE, P, P, NONE]])
    routed = on_spans(labels, perception=tensor([1.0, 2.0]).double(), reasoning=tensor([-3.0, -4.0]).double())
    assert_close(routed, tensor([[0.0, 1.0, -3.0, -3.0], [0.0, 2.0, 2.0, 0.0]]))
