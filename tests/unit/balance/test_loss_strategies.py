"""Strategies that read losses, or nothing: weights worked out by hand, and where one equals another."""

from __future__ import annotations

import math
import re
from pathlib import Path
from statistics import fmean, pstdev

import pytest

from percasym.balance.base import SpanStats
from percasym.balance.dwa import DynamicWeightAverage
from percasym.balance.famo import Famo
from percasym.balance.fixed import Fixed
from percasym.balance.inverse_loss import InverseLoss
from percasym.balance.rlw import RandomLossWeighting
from percasym.balance.schedule import Schedule
from percasym.balance.uncertainty import Uncertainty
from percasym.config.resolve import composed


def course(balancer, losses) -> list[float]:
    """The weight after each step with these losses."""
    state, weights = balancer.start(), []
    for step, pair in enumerate(losses):
        state = balancer.step(state, SpanStats(step=step, num_steps=len(losses), counts=(3, 97), losses=pair))
        weights.append(state.weight)
    return weights


def test_inverse_losses_weigh_the_same():
    # 3 w = 1 (1 - w): w = 0.25.
    assert course(InverseLoss(), [(3.0, 1.0)]) == [0.25]


def test_a_full_reward_does_not_take_the_weight():
    # In RL the losses are one minus the mean reward; with full perception reward the formula would give w = 1, and no gradient at all.
    assert course(InverseLoss(), [(0.2, 0.6), (0.0, 0.6), (0.2, 0.0)]) == [pytest.approx(0.75)] * 3


def test_an_almost_full_reward_takes_the_weight_up_to_its_bound():
    assert course(InverseLoss(high=0.8), [(1e-12, 0.6)]) == [0.8]


def test_a_variance_goes_half_way_to_twice_the_loss_in_its_half_life():
    # rate = 2 log 2: exp(-rate / 2) = 1/2. From 1, losses 2 and 0.5 pull to 4 and 1: the variances are 2.5 and 1, w = 1 / 3.5.
    assert course(Uncertainty(rate=2 * math.log(2)), [(2.0, 0.5)]) == [pytest.approx(1 / 3.5)]


def test_uncertainty_settles_at_inverse_loss_at_constant_losses():
    steady = [(3.0, 1.0)] * 400
    assert course(Uncertainty(), steady)[-1] == pytest.approx(course(InverseLoss(), steady)[-1])


def test_dwa_waits_for_two_periods_and_then_leans_toward_the_slower_span():
    # Periods of 2: perception 4 then 2 (ratio 1/2), reasoning 1 then 1 (ratio 1); w = sigmoid((0.5 - 1) / 2) = 1 / (1 + e^0.25).
    losses = [(5.0, 1.0), (3.0, 1.0), (2.5, 1.0), (1.5, 1.0), (9.0, 1.0)]
    late = 1 / (1 + math.exp(0.25))
    assert course(DynamicWeightAverage(period_steps=2), losses) == pytest.approx([0.5, 0.5, 0.5, late, late])


def test_dwa_at_a_high_temperature_is_fixed_at_one_half():
    weights = course(DynamicWeightAverage(period_steps=1, temperature=1e9), [(4.0, 1.0), (1.0, 4.0), (4.0, 1.0)])
    assert weights == pytest.approx(course(Fixed(weight=0.5), [(1.0, 1.0)] * 3))


def test_famo_begins_with_inverse_losses_and_leans_toward_the_span_that_fell_less():
    # Step 1: no change is known, z = 1/2 each: w = L_r / (L_p + L_r) = 1/4. Step 2: log L_p fell by log 3, log L_r by 0, so the slope
    # is positive and Adam's first step is lr whole: xi = -0.5, w / (1 - w) = exp(2 * -0.5) * L_r / L_p = 1/e.
    assert course(Famo(lr=0.5), [(3.0, 1.0), (1.0, 1.0)]) == pytest.approx([0.25, 1 / (1 + math.e)])


def test_famo_whose_logits_do_not_move_is_inverse_loss():
    losses = [(3.0, 1.0), (1.0, 2.0), (0.1, 5.0)]
    assert course(Famo(lr=0.0), losses) == pytest.approx(course(InverseLoss(), losses))


def test_random_weights_are_those_of_two_normal_logits():
    # x_p - x_r has mean 0 and standard deviation sqrt 2; over 4,000 draws their standard errors are 0.022 and 0.016.
    logits = [math.log(w / (1 - w)) for w in course(RandomLossWeighting(), [(1.0, 1.0)] * 4000)]
    assert fmean(logits) == pytest.approx(0, abs=0.1)
    assert pstdev(logits) == pytest.approx(math.sqrt(2), abs=0.07)


def test_random_weights_are_those_of_the_seed_and_the_step():
    assert course(RandomLossWeighting(seed=1), [(1.0, 1.0)] * 5) == course(RandomLossWeighting(seed=1), [(2.0, 9.0)] * 5)
    assert course(RandomLossWeighting(seed=1), [(1.0, 1.0)] * 5)[1:] != course(RandomLossWeighting(seed=2), [(1.0, 1.0)] * 5)[:-1]


def test_the_seed_of_random_weights_is_that_of_the_run():
    assert composed(["balance=rlw", "seed=3"], Path(__file__).parents[3] / "conf").balance == RandomLossWeighting(seed=3)


def test_a_constant_schedule_is_fixed():
    assert course(Schedule(kind="constant", begin=0.3), [(1.0, 1.0)] * 3) == course(Fixed(weight=0.3), [(1.0, 1.0)] * 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uncertainty(rate=-0.1), "balance.rate must be at least 0, got -0.1."),
        (lambda: DynamicWeightAverage(period_steps=0), "balance.period_steps must be at least 1, got 0."),
        (lambda: DynamicWeightAverage(temperature=0.0), "balance.temperature must be above 0, got 0.0."),
        (lambda: Famo(lr=-1.0), "balance.lr must be at least 0, got -1.0."),
        (lambda: Famo(decay=-1.0), "balance.decay must be at least 0, got -1.0."),
    ],
)
def test_impossible_options_are_refused(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()
