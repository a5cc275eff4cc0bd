"""Each strategy against weights worked out by hand."""

from __future__ import annotations

import re

import pytest

from percasym.balance.base import BalanceState, Gramian, SpanStats
from percasym.balance.fixed import Fixed
from percasym.balance.ngdiff import NGDiff
from percasym.balance.none import NoBalance
from percasym.balance.schedule import Schedule


def stats(counts=(1, 1), norms=(1.0, 1.0)) -> SpanStats:
    return SpanStats(step=0, num_steps=1, counts=counts, gramian=Gramian(perception=norms[0] ** 2, reasoning=norms[1] ** 2, cross=0.0))


def test_without_balancing_the_weight_is_the_share_of_tokens():
    assert NoBalance().step(BalanceState(weight=0.9), stats(counts=(25, 975))).weight == 0.025


def test_without_any_token_the_weight_stays():
    assert NoBalance().step(BalanceState(weight=0.9), stats(counts=(0, 0))).weight == 0.9


def test_a_fixed_weight_stays():
    balancer = Fixed(weight=0.3)
    assert balancer.step(balancer.start(), stats(counts=(25, 975), norms=(9.0, 1.0))).weight == 0.3


@pytest.mark.parametrize("weight", [1.7, -0.1, float("nan")])
def test_a_weight_outside_the_unit_interval_is_refused(weight):
    with pytest.raises(ValueError, match=rf"^balance\.weight must lie in \[0, 1\], got {weight}\.$"):
        Fixed(weight=weight)


def test_ngdiff_weighs_each_span_by_the_other_ones_norm():
    # |g_p| = 3, |g_r| = 1: w = 1 / (3 + 1), and w |g_p| = 0.75 = (1 - w) |g_r|.
    assert NGDiff().step(NGDiff().start(), stats(norms=(3.0, 1.0))).weight == 0.25


def test_smoothing_keeps_part_of_the_last_weight_but_nothing_of_the_start():
    balancer = NGDiff(smoothing=0.5)
    first = balancer.step(balancer.start(), stats(norms=(3.0, 1.0)))
    assert first.weight == 0.25
    # Norms 1 and 3 give 0.75: half the old weight and half the new one is 0.5.
    assert balancer.step(first, stats(norms=(1.0, 3.0))).weight == pytest.approx(0.5)


def test_bounds_hold_from_the_start():
    balancer = NGDiff(low=0.6, high=0.7)
    assert balancer.start().weight == 0.6
    assert balancer.step(balancer.start(), stats(norms=(3.0, 1.0))).weight == 0.6
    assert balancer.step(balancer.start(), stats(norms=(1.0, 9.0))).weight == 0.7


@pytest.mark.parametrize("options", [{"smoothing": 1.0}, {"smoothing": -0.1}, {"low": 0.8, "high": 0.2}, {"high": 1.1}])
def test_impossible_options_of_ngdiff_are_refused(options):
    with pytest.raises(ValueError, match=r"^balance\.(smoothing|low and balance\.high) must "):
        NGDiff(**options)


def test_norms_near_the_largest_number_do_not_overflow():
    assert NGDiff().step(NGDiff().start(), stats(norms=(1e154, 1e154))).weight == 0.5


def course(balancer, num_steps) -> list[float]:
    """The weight of every step of a run."""
    state, weights = balancer.start(), []
    for step in range(num_steps):
        state = balancer.step(state, SpanStats(step=step, num_steps=num_steps, counts=(25, 975)))
        weights.append(state.weight)
    return weights


@pytest.mark.parametrize(
    ("kind", "weights"),
    [
        # The move takes 0.5 * 8 = 4 steps: t = 0, 1/4, 1/2, 3/4, then 1.
        ("constant", [0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]),
        ("linear", [0.9, 0.7, 0.5, 0.3, 0.1, 0.1, 0.1, 0.1]),
        # (1 - cos(pi/4)) / 2 = 0.1464466 of the way from 0.9 to 0.1 is 0.7828427; at 3/4 the mirror image.
        ("cosine", [0.9, 0.7828427, 0.5, 0.2171573, 0.1, 0.1, 0.1, 0.1]),
        ("perception_first", [0.9, 0.9, 0.9, 0.9, 0.1, 0.1, 0.1, 0.1]),
    ],
)
def test_a_schedule_follows_its_curve_and_then_rests(kind, weights):
    assert course(Schedule(kind=kind, begin=0.9, end=0.1, until_frac=0.5), 8) == pytest.approx(weights)


def test_perception_first_trains_perception_alone_for_its_share_of_the_steps():
    # 0.7 * 10 is 7.000000000000001 in floats, and still 7 steps.
    assert course(Schedule(kind="perception_first", end=0.03, until_frac=0.7), 10) == [1.0] * 7 + [0.03] * 3


@pytest.mark.parametrize("kind", ["linear", "cosine", "perception_first"])
def test_a_schedule_without_time_to_move_is_at_its_end(kind):
    assert course(Schedule(kind=kind, end=0.3, until_frac=0.0), 3) == [0.3] * 3


def test_a_schedule_that_takes_the_whole_run_moves_until_its_last_step():
    # t = 0, 1/4, 1/2, 3/4: the end itself would be reached by a fifth step.
    assert course(Schedule(kind="linear", begin=0.0, end=1.0, until_frac=1.0), 4) == [0.0, 0.25, 0.5, 0.75]


def test_a_resumed_schedule_goes_on_where_it_was():
    balancer = Schedule(kind="linear", begin=0.0, end=1.0, until_frac=1.0)
    assert balancer.step(BalanceState(weight=0.9), SpanStats(step=1, num_steps=4, counts=(1, 1))).weight == 0.25


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"begin": 1.5}, "balance.begin must lie in [0, 1], got 1.5."),
        ({"until_frac": -0.1}, "balance.until_frac must lie in [0, 1], got -0.1."),
        ({"kind": "sine"}, "balance.kind must be one of constant, linear, cosine, perception_first, got 'sine'."),
    ],
)
def test_an_impossible_schedule_is_refused(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Schedule(**options)
