"""Closed forms for two spans against TorchJD's general algorithms, and against the conditions of a paper where TorchJD needs a solver."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torchjd.aggregation as jd
import torchjd.scalarization as scalar
from torchjd.linalg import DualConeProjector

from percasym.balance.aligned import AlignedMtl
from percasym.balance.base import Gramian, SpanStats
from percasym.balance.cagrad import CaGrad
from percasym.balance.dwa import DynamicWeightAverage
from percasym.balance.famo import Famo
from percasym.balance.gradnorm import GradNorm
from percasym.balance.inverse_loss import InverseLoss
from percasym.balance.mgda import Mgda
from percasym.balance.nash import NashMtl
from percasym.balance.ngdiff import NGDiff
from percasym.balance.pcgrad import PcGrad
from percasym.balance.uncertainty import Uncertainty
from percasym.balance.upgrad import UpGrad

NUM = 500


def gradients() -> list[torch.Tensor]:
    """Pairs [2, 3] in every relation: lengths from 0.01 to 100, angles from nearly one direction to nearly opposite ones."""
    draw = torch.Generator().manual_seed(0)
    pairs = torch.randn(NUM, 2, 3, generator=draw, dtype=torch.float64)
    return list(pairs * 10 ** (4 * torch.rand(NUM, 2, 1, generator=draw, dtype=torch.float64) - 2))


def losses(num: int) -> list[tuple[float, float]]:
    """Two losses that wander, one about ten times the other."""
    draw = torch.Generator().manual_seed(1)
    return [(math.exp(p), 10 * math.exp(r)) for p, r in (0.3 * torch.randn(num, 2, generator=draw, dtype=torch.float64)).tolist()]


class Enumerated(DualConeProjector):
    """min v^T G v over v >= u, by trying which entries leave their bound (TorchJD's own solver is not among our dependencies)."""

    def __call__(self, U, G):  # noqa: N803, as TorchJD names them
        return torch.stack([min(self._candidates(u, G), key=lambda v: float(v @ G @ v)) for u in U])

    def _candidates(self, u, gramian):
        yield u
        for free, held in ((0, 1), (1, 0)):
            v = u.clone()
            v[free] = -gramian[free, held] * u[held] / gramian[free, free]  # Where the slope along `free` is zero.
            if v[free] >= u[free]:
                yield v


def stats(gramian: torch.Tensor | None = None, loss: tuple[float, float] | None = None) -> SpanStats:
    numbers = SpanStats(step=0, num_steps=100, counts=(3, 97), losses=loss)
    if gramian is None:
        return numbers
    (perception, cross), (_, reasoning) = gramian.tolist()
    return replace(numbers, gramian=Gramian(perception=perception, reasoning=reasoning, cross=cross))


def weight_of(balancer, gramian: torch.Tensor) -> float:
    return balancer.step(balancer.start(), stats(gramian)).weight


def share(weights: torch.Tensor) -> float:
    """The first of two weights once they sum to 1, within [0, 1]."""
    return min(max(float(weights[0] / weights.sum()), 0.0), 1.0)


def test_the_pairs_agree_and_conflict():
    cosines = [stats(pair @ pair.T).gramian.cosine for pair in gradients()]
    assert min(cosines) < -0.9 and max(cosines) > 0.9


@pytest.mark.parametrize(
    ("balancer", "weighting", "tolerance"),
    [
        (NGDiff(), jd.IMTLGWeighting(), 1e-9),
        (NashMtl(), jd.IMTLGWeighting(), 1e-9),
        (Mgda(), jd.MGDAWeighting(), 1e-9),
        (PcGrad(), jd.PCGradWeighting(), 1e-9),
        (AlignedMtl(), jd.AlignedMTLWeighting(), 1e-6),
        (UpGrad(), jd.UPGradWeighting(projector=Enumerated()), 1e-9),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_closed_form_is_what_the_general_algorithm_finds(balancer, weighting, tolerance):
    for pair in gradients():
        gramian = pair @ pair.T
        assert weight_of(balancer, gramian) == pytest.approx(share(weighting(gramian)), abs=tolerance)


@pytest.mark.parametrize("c", [0.1, 0.5, 0.9])
def test_cagrad_serves_the_worse_off_span_best_of_all_updates_in_its_ball(c):
    # d = s (w g_p + (1 - w) g_r) with |d - g_0| = c |g_0|: one of two points of the ball's edge. None of 2,000 others, all round in the
    # plane of the two gradients, raises the smaller of <g_p, d> and <g_r, d>.
    angle = torch.linspace(0, 2 * math.pi, 2001, dtype=torch.float64)
    for each in gradients()[:100]:
        pair = torch.linalg.qr(each.T).R.T  # The same gradients in the coordinates of their plane, [2, 2].
        mean, weight = pair.mean(0), weight_of(CaGrad(c=c), pair @ pair.T)
        radius, ray = c * mean.norm(), weight * pair[0] + (1 - weight) * pair[1]
        square, along = ray @ ray, ray @ mean
        middle, spread = along / square, (along**2 - square * (mean @ mean - radius**2)).clamp(min=0).sqrt() / square
        crossings = torch.stack([middle - spread, middle + spread])[:, None] * ray
        assert (crossings - mean).norm(dim=1).tolist() == pytest.approx([float(radius)] * 2, rel=1e-6)  # The ray does meet the ball.
        edge = mean + radius * torch.stack([angle.cos(), angle.sin()], 1)
        ours, theirs = ((points @ pair.T).min(1).values.max() for points in (crossings, edge))
        assert float(theirs - ours) <= 1e-9 * float(ours.abs())


def test_nash_solves_the_bargaining_equation():
    # G a = 1 / a: with a = s (w, 1 - w) both entries of a * (G a) are one number.
    for pair in gradients():
        gramian = pair @ pair.T
        weight = weight_of(NashMtl(), gramian)
        a = torch.tensor([weight, 1 - weight], dtype=torch.float64)
        ours, theirs = (a * (gramian @ a)).tolist()
        assert ours == pytest.approx(theirs, rel=1e-6)


def test_a_step_of_gradnorm_is_the_subgradient_of_its_published_loss():
    # L_grad = sum_k |w_k |g_k| - mean(G) r_k ** alpha|, the target held still; norms in units of their sum.
    balancer, loss = GradNorm(alpha=1.5, lr=0.025), losses(NUM)
    state, weight = balancer.start(), torch.tensor([0.5, 0.5], dtype=torch.float64)
    for pair, now in zip(gradients(), loss, strict=True):
        state = balancer.step(state, stats(pair @ pair.T, now))
        norms, weight = pair.norm(dim=1) / pair.norm(dim=1).sum(), weight.requires_grad_()
        rates = torch.tensor([now[0] / loss[0][0], now[1] / loss[0][1]], dtype=torch.float64)
        goal = ((weight * norms).mean() * (rates / rates.mean()) ** 1.5).detach()
        (slope,) = torch.autograd.grad((weight * norms - goal).abs().sum(), weight)
        weight = (weight.detach() - 0.025 * slope).clamp(min=1e-3)
        weight = weight / weight.sum()
        assert state.weight == pytest.approx(float(weight[0]), abs=1e-9)


def test_inverse_losses_are_the_gradient_of_the_geometric_mean():
    for pair in losses(50):
        values = torch.tensor(pair, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(scalar.GeometricMean()(values), values)
        assert InverseLoss().step(InverseLoss().start(), stats(loss=pair)).weight == pytest.approx(share(slope))


def test_the_flow_of_the_variances_is_what_many_small_gradient_steps_do():
    # TorchJD halves L (the form for regression), hence 2 L; 500 steps of rate / 500 on each loss. The weight is exp(-s_k).
    balancer, theirs = Uncertainty(rate=0.5), scalar.UW(2).double()
    state, sgd = balancer.start(), torch.optim.SGD(theirs.parameters(), lr=0.5 / 500)
    for pair in losses(3):
        for _ in range(500):
            sgd.zero_grad()
            theirs(2 * torch.tensor(pair, dtype=torch.float64)).backward()
            sgd.step()
        state = balancer.step(state, stats(loss=pair))
        (s,) = theirs.parameters()
        assert state.weight == pytest.approx(share(torch.exp(-s.detach())), rel=1e-3)


def test_dwa_is_torchjds_with_a_period_in_place_of_an_epoch():
    balancer, theirs = DynamicWeightAverage(temperature=2.0, period_steps=5), scalar.DWA(temperature=2.0)
    state = balancer.start()
    for step, pair in enumerate(losses(30)):
        values = torch.tensor(pair, dtype=torch.float64, requires_grad=True)
        (used,) = torch.autograd.grad(theirs(values), values)
        assert state.weight == pytest.approx(share(used))  # The weight of this step, before its losses are known.
        state = balancer.step(state, stats(loss=pair))
        if step % 5 == 4:
            theirs.step()


def test_famo_is_torchjds_with_the_next_batch_in_place_of_the_same_one():
    balancer, theirs = Famo(), scalar.FAMO(2).double()
    state = balancer.start()
    for step, pair in enumerate(losses(50)):
        values = torch.tensor(pair, dtype=torch.float64, requires_grad=True)
        if step:
            theirs.update(values)
        (used,) = torch.autograd.grad(theirs(values), values)
        state = balancer.step(state, stats(loss=pair))
        assert state.weight == pytest.approx(share(used), rel=1e-6)
