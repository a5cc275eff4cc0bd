"""Strategies that read gradients: weights worked out by hand, and where one equals another."""

from __future__ import annotations

import math
import re

import pytest

from percasym.balance.aligned import AlignedMtl
from percasym.balance.base import Gramian, SpanStats
from percasym.balance.cagrad import CaGrad
from percasym.balance.gradnorm import FLOOR, GradNorm
from percasym.balance.hidden import Hidden
from percasym.balance.mgda import Mgda
from percasym.balance.nash import NashMtl
from percasym.balance.ngdiff import NGDiff
from percasym.balance.pcgrad import PcGrad
from percasym.balance.upgrad import UpGrad

ANGLES = [math.radians(degrees) for degrees in range(0, 181, 15)]
LENGTHS = [(1.0, 1.0), (3.0, 1.0), (1.0, 3.0), (1e-3, 1e3)]
PAIRS = [(lengths, angle) for lengths in LENGTHS for angle in ANGLES]


def stats(norms, angle=math.pi / 2, losses=(1.0, 1.0)) -> SpanStats:
    gramian = Gramian(perception=norms[0] ** 2, reasoning=norms[1] ** 2, cross=norms[0] * norms[1] * math.cos(angle))
    return SpanStats(step=0, num_steps=1, counts=(3, 97), losses=losses, hidden=norms, gramian=gramian)


def gram(perception, reasoning, cross) -> SpanStats:
    return SpanStats(step=0, num_steps=1, counts=(3, 97), gramian=Gramian(perception=perception, reasoning=reasoning, cross=cross))


def weight_of(balancer, numbers) -> float:
    return balancer.step(balancer.start(), numbers).weight


@pytest.mark.parametrize(
    ("balancer", "numbers", "weight"),
    [
        # g_p = (2, 0), g_r = (1, 1): G = 4, 2, 2. The shortest mixture is g_r itself, for <g_p, g_r> = |g_r|^2.
        (Mgda(), gram(4.0, 2.0, 2.0), 0.0),
        # g_p = (2, 0), g_r = (0, 1): w = 1 / (4 + 1).
        (Mgda(), gram(4.0, 1.0, 0.0), 0.2),
        # g_p = (2, 0), g_r = (-1, 1): G = 4, 2, -2. g_p' = g_p + 2/2 g_r, g_r' = g_r + 2/4 g_p: 1.5 g_p + 2 g_r.
        (PcGrad(), gram(4.0, 2.0, -2.0), 1.5 / 3.5),
        # The same: pi(g_p) = (1, 1) is orthogonal to g_r, pi(g_r) = (0, 1) to g_p; their sum (1, 2) is 1.5 g_p + 2 g_r.
        (UpGrad(), gram(4.0, 2.0, -2.0), 1.5 / 3.5),
        # G = 9, 1, 0: G^(-1/2) = diag(1/3, 1).
        (AlignedMtl(), gram(9.0, 1.0, 0.0), 0.25),
        # G = 2, 2, 1: equal lengths.
        (AlignedMtl(), gram(2.0, 2.0, 1.0), 0.5),
        # G = 5, 2, 1: det = 9, s = 3; w = (2 - 1 + 3) / (5 + 2 - 2 + 6) = 4 / 11.
        (AlignedMtl(), gram(5.0, 2.0, 1.0), 4 / 11),
        # g_p = (10, 0), g_r = (1, 1): s = 10, |g_r|^2 - c + s = 2 - 10 + 10 = 2, |g_p|^2 - c + s = 100: still positive ...
        (AlignedMtl(), gram(100.0, 2.0, 10.0), 2 / 102),
        # ... g_r = (2, 1): s = 10, 5 - 20 + 10 < 0: the paper would subtract g_p.
        (AlignedMtl(), gram(100.0, 5.0, 20.0), 0.0),
        # |g_p| = 3, |g_r| = 1, whatever the angle.
        (NashMtl(), gram(9.0, 1.0, -2.0), 0.25),
        # Norms 3 and 1 at the hidden state.
        (Hidden(), stats((3.0, 1.0)), 0.25),
        # g_p = (1, 0), g_r = (0, 2): g_0 = (1/2, 1), k = |g_0| / 2 = sqrt(5)/4, and m = 4/5 is more than the ball allows:
        # d = g_0 + k g_p has 1/2 + sqrt(5)/4 of g_p and 1/2 of g_r.
        (CaGrad(c=0.5), gram(1.0, 4.0, 0.0), (0.5 + math.sqrt(5) / 4) / (1 + math.sqrt(5) / 4)),
        # g_r = (0, 1.2): m = 1.44 / 2.44 = 0.59, and k = sqrt(0.61) / 2 = 0.39 allows up to (0.5 + 0.39) / (1 + 0.39) = 0.64.
        (CaGrad(c=0.5), gram(1.0, 1.44, 0.0), 1.44 / 2.44),
    ],
)
def test_a_weight_worked_out_by_hand(balancer, numbers, weight):
    assert weight_of(balancer, numbers) == pytest.approx(weight, rel=1e-6)


def test_gradnorm_steps_toward_the_span_with_the_smaller_gradient():
    # w = 1/2 each, norms 3 and 1 (shares 3/4 and 1/4); G = 1.5, 0.5, goal 1 for both: w_p - 0.1 * 3/4 = 0.425, w_r + 0.1 * 1/4 = 0.525.
    assert weight_of(GradNorm(lr=0.1), stats((3.0, 1.0))) == pytest.approx(0.425 / 0.95)


def test_gradnorm_leans_toward_the_span_that_learns_slowly():
    balancer = GradNorm(alpha=1.0, lr=0.1)
    first = balancer.step(balancer.start(), stats((1.0, 1.0), losses=(4.0, 4.0)))
    assert first.weight == 0.5
    # Losses 4 -> 4 and 4 -> 1: r = 1 and 1/4 over their mean 5/8 is 1.6 and 0.4; goals 0.8 and 0.2, G = 0.5 each: +0.05 and -0.05.
    assert balancer.step(first, stats((1.0, 1.0), losses=(4.0, 1.0))).weight == pytest.approx(0.55)


def test_gradnorm_without_a_tilt_walks_to_ngdiff():
    balancer = GradNorm(alpha=0.0, lr=0.01)
    state = balancer.start()
    for _ in range(100):
        state = balancer.step(state, stats((3.0, 1.0)))
    assert state.weight == pytest.approx(weight_of(NGDiff(), stats((3.0, 1.0))), abs=0.01)


def test_gradnorm_never_lets_a_weight_vanish():
    balancer = GradNorm(alpha=0.0, lr=0.5)
    state = balancer.start()
    for norms in [(1e6, 1.0)] * 5 + [(1.0, 1e6)] * 5:
        state = balancer.step(state, stats(norms))
        assert FLOOR / 2 < state.weight < 1 - FLOOR / 2


@pytest.mark.parametrize("broken", [0.0, math.nan, math.inf])
def test_gradnorm_keeps_its_weight_where_a_number_is_not_usable(broken):
    balancer = GradNorm()
    before = balancer.step(balancer.start(), stats((3.0, 1.0)))
    assert balancer.step(before, stats((3.0, 1.0), losses=(broken, 1.0))) == before
    assert balancer.step(before, stats((1.0, broken))) == before


@pytest.mark.parametrize(("norms", "angle"), PAIRS)
def test_with_two_spans_nash_is_ngdiff_and_upgrad_is_pcgrad(norms, angle):
    numbers = stats(norms, angle)
    assert weight_of(NashMtl(), numbers) == pytest.approx(weight_of(NGDiff(), numbers))
    assert weight_of(UpGrad(), numbers) == pytest.approx(weight_of(PcGrad(), numbers))


@pytest.mark.parametrize(("norms", "angle"), [(norms, angle) for norms, angle in PAIRS if angle < math.pi / 2])
def test_without_a_conflict_surgery_is_the_plain_mean(norms, angle):
    assert weight_of(PcGrad(), stats(norms, angle)) == 0.5


@pytest.mark.parametrize(("norms", "angle"), PAIRS)
def test_cagrad_without_a_radius_is_the_plain_mean(norms, angle):
    assert weight_of(CaGrad(c=0.0), stats(norms, angle)) == pytest.approx(0.5)


@pytest.mark.parametrize(("norms", "angle"), PAIRS)
def test_cagrad_lies_between_the_plain_mean_and_mgda(norms, angle):
    weight, shortest = weight_of(CaGrad(), stats(norms, angle)), weight_of(Mgda(), stats(norms, angle))
    assert min(0.5, shortest) <= weight <= max(0.5, shortest)


@pytest.mark.parametrize("norms", LENGTHS)
def test_orthogonal_gradients_are_aligned_by_ngdiff_and_shortest_by_its_squares(norms):
    squares = stats((norms[0] ** 2, norms[1] ** 2))
    assert weight_of(AlignedMtl(), stats(norms)) == pytest.approx(weight_of(NGDiff(), stats(norms)))
    assert weight_of(Mgda(), stats(norms)) == pytest.approx(weight_of(NGDiff(), squares))


@pytest.mark.parametrize("norms", LENGTHS)
def test_opposite_gradients_are_aligned_by_ngdiff(norms):
    assert weight_of(AlignedMtl(), stats(norms, math.pi)) == pytest.approx(weight_of(NGDiff(), stats(norms)), rel=1e-6)


@pytest.mark.parametrize("balancer", [NGDiff(), NashMtl(), Mgda(), PcGrad(), UpGrad(), CaGrad(), AlignedMtl()])
@pytest.mark.parametrize("angle", ANGLES)
def test_gradients_of_one_length_weigh_the_same_at_every_angle(balancer, angle):
    assert weight_of(balancer, stats((2.0, 2.0), angle)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CaGrad(c=1.0), "balance.c must lie in [0, 1), got 1.0."),
        (lambda: GradNorm(alpha=-1.0), "balance.alpha must be at least 0, got -1.0."),
        (lambda: GradNorm(lr=-1.0), "balance.lr must be at least 0, got -1.0."),
    ],
)
def test_impossible_options_are_refused(make, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()
