"""Bounds, smoothing and warm-up of moving weights, on the simplest of them."""

from __future__ import annotations

import re
from dataclasses import fields, replace

import pytest

from percasym.balance.base import Gramian, SpanStats
from percasym.balance.dwa import DynamicWeightAverage
from percasym.balance.gradnorm import GradNorm
from percasym.balance.inverse_loss import InverseLoss
from percasym.balance.mgda import Mgda
from percasym.balance.moving import WarmupWeight
from percasym.balance.ngdiff import NGDiff


def stats(step: int, losses=(1.0, 3.0)) -> SpanStats:
    return SpanStats(step=step, num_steps=10, counts=(3, 97), losses=losses)


def course(balancer, num_steps: int) -> list[float]:
    """The weight after each step."""
    state, weights = balancer.start(), []
    for step in range(num_steps):
        state = balancer.step(state, stats(step))
        weights.append(state.weight)
    return weights


def test_a_warm_up_keeps_the_initial_weight_for_its_share_of_the_steps():
    # 0.3 * 10 = 3 steps; losses 1 and 3 then give 3 / 4.
    assert course(InverseLoss(warmup_frac=0.3, initial=0.1), 5) == [0.1, 0.1, 0.1, 0.75, 0.75]


def test_a_warm_up_does_not_change_the_memory():
    balancer = InverseLoss(warmup_frac=0.3, initial=0.1)
    assert balancer.step(balancer.start(), stats(2)) == balancer.start()


def test_after_a_warm_up_smoothing_keeps_nothing_of_the_initial_weight():
    assert course(InverseLoss(warmup_frac=0.3, initial=0.1, smoothing=0.9), 4)[-1] == 0.75


@pytest.mark.parametrize("balancer", [GradNorm(initial=0.1, lr=0.0), DynamicWeightAverage(initial=0.1)])
def test_a_strategy_that_moves_by_steps_sets_out_from_the_initial_weight(balancer):
    numbers = replace(stats(0), gramian=Gramian(perception=1.0, reasoning=9.0, cross=0.0))
    assert balancer.step(balancer.start(), numbers).weight == pytest.approx(0.1)


def test_the_initial_weight_obeys_the_bounds():
    assert InverseLoss(initial=0.1, low=0.2).start().weight == 0.2


def test_bounds_and_smoothing_are_those_of_every_moving_weight():
    balancer = InverseLoss(smoothing=0.5, high=0.7)
    first = balancer.step(balancer.start(), stats(0))
    assert first.weight == 0.7
    # Losses 3 and 1 give 0.25: half of the last weight and half of it is 0.475.
    assert balancer.step(first, stats(1, losses=(3.0, 1.0))).weight == pytest.approx(0.475)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"warmup_frac": 1.5}, "balance.warmup_frac must lie in [0, 1], got 1.5."),
        ({"initial": -0.5}, "balance.initial must lie in [0, 1], got -0.5."),
        ({"smoothing": 1.0}, "balance.smoothing must lie in [0, 1), got 1.0."),
        ({"low": 0.8, "high": 0.2}, "balance.low and balance.high must satisfy 0 <= low <= high <= 1, got 0.8 and 0.2."),
    ],
)
def test_impossible_shared_options_are_refused(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Mgda(**options)


def test_ngdiff_has_no_warm_up_because_its_first_weight_is_exact():
    assert [field.name for field in fields(NGDiff)] == ["smoothing", "low", "high"]
    assert not issubclass(NGDiff, WarmupWeight)


@pytest.mark.parametrize("norms", [(1e154, 1e153), (1e-150, 1e-151)])
def test_the_largest_and_smallest_norms_neither_overflow_nor_vanish(norms):
    # |g_p| = 10 |g_r|, orthogonal: w = 1 / (100 + 1).
    gramian = Gramian(perception=norms[0] ** 2, reasoning=norms[1] ** 2, cross=0.0)
    assert Mgda().step(Mgda().start(), SpanStats(step=0, num_steps=1, counts=(1, 1), gramian=gramian)).weight == pytest.approx(1 / 101)
