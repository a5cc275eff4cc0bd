"""Each strategy against weights worked out by hand."""

from __future__ import annotations

import pytest

from percasym.balance.base import BalanceState, Gramian, SpanStats
from percasym.balance.fixed import Fixed
from percasym.balance.ngdiff import NGDiff
from percasym.balance.none import NoBalance


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
    # Norms 1 and 3 ask for 0.75: half the old weight and half the new one is 0.5.
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
