"""The balanced objective beside independent references: Hugging Face's own loss, TorchJD, another engine, another split."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from percasym.balance.base import BalanceState, SpanStats
from percasym.balance.fixed import Fixed
from percasym.balance.ngdiff import NGDiff
from percasym.balance.none import NoBalance
from percasym.config.paradigm import Sft
from percasym.models.base import Batch
from percasym.objectives.coefficients import span_counts
from percasym.training.sft import train
from percasym.training.span_gradients import backward, prefixes
from percasym.types import Span
from tests.recording import Record

P, R = Span.perception, Span.reasoning
EXACT = {"rtol": 1e-5, "atol": 1e-7}


@pytest.fixture(params=["qwen3vl", "internvl35"])
def family_name(request):
    return request.param


def run(engine, windows, balancer) -> Record:
    record = Record()
    settings = Sft(steps=len(windows), batch_size=8, micro_batch_size=8, lr=1e-3, warmup_frac=0.0)
    train(engine=engine, batches=windows, balancer=balancer, settings=settings, run=record, evaluate=lambda step: None)
    return record


def counts_of(batches) -> tuple[int, int]:
    return tuple(span_counts([batch.labels for batch in batches]).tolist())


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def relative(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """|ours - theirs| / |theirs| over all parameters together."""
    assert ours.keys() == theirs.keys()
    gap = sum(float((ours[name] - theirs[name]).double().square().sum()) for name in ours)
    return (gap / sum(float(value.double().square().sum()) for value in theirs.values())) ** 0.5


@pytest.mark.parametrize("rows", [8, 3, 1])
def test_none_is_the_loss_and_the_gradient_of_hugging_face(rows, make_engine, tiny_model, tiny_batch, micro_batches):
    batch, model = tiny_batch(rows=8), tiny_model()
    theirs = model(**batch.arguments, labels=batch.ids.masked_fill(batch.labels < 0, -100)).loss
    theirs.backward()

    engine, window = make_engine("torch", tiny_model()), micro_batches(batch, rows)
    counts = counts_of(window)
    weight = NoBalance().step(BalanceState(weight=0.5), SpanStats(step=0, num_steps=1, counts=counts)).weight
    sums = backward(engine, window, {P: weight, R: 1 - weight}, counts)
    ours = weight * sums[P] / counts[P] + (1 - weight) * sums[R] / counts[R]
    assert float(ours) == pytest.approx(theirs.item(), rel=1e-5)
    assert relative(gradients(engine.model), gradients(model)) < 1e-5


def test_fixed_at_the_share_of_tokens_is_none(make_engine, tiny_model, tiny_batch):
    windows = [[tiny_batch(rows=8, seed=0)]] * 3  # One batch again and again, so that one weight fits every step.
    num_p, num_r = counts_of(windows[0])
    first, second = make_engine("torch", tiny_model()), make_engine("torch", tiny_model())
    none, fixed = run(first, windows, NoBalance()), run(second, windows, Fixed(weight=num_p / (num_p + num_r)))
    for ours, theirs in zip(none.values, fixed.values, strict=True):
        assert {k: v for k, v in ours.items() if "second" not in k} == {k: v for k, v in theirs.items() if "second" not in k}
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))


@pytest.mark.parametrize("engine_name", ["torch", "deepspeed"])
def test_ngdiff_is_imtl_g_of_torchjd(engine_name, make_engine, tiny_model, tiny_batch):
    from torchjd.aggregation import IMTLG, IMTLGWeighting

    engine, batch, vectors = make_engine(engine_name, tiny_model()), tiny_batch(rows=8), {}
    for span in Span:
        backward(engine, [batch], {span: 1.0}, counts_of([batch]))
        vectors[span] = torch.cat([value.flatten() for value in gradients(engine.model).values()]).double()
        engine.keep_gradient(span)
    gramian = engine.gramian()
    stats = SpanStats(step=0, num_steps=1, counts=counts_of([batch]), gramian=gramian)
    weight = NGDiff().step(NGDiff().start(), stats).weight
    jacobian = torch.stack([vectors[P], vectors[R]])
    assert [weight, 1 - weight] == pytest.approx(IMTLGWeighting()(jacobian @ jacobian.T).tolist(), rel=1e-4)
    assert abs(weight - 0.5) > 0.02  # Not the trivial case.

    engine.combine({P: weight, R: 1 - weight})
    combined = torch.cat([value.flatten() for value in gradients(engine.model).values()]).double()
    assert_close(combined, IMTLG()(jacobian), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("balancer", [NoBalance(), Fixed(weight=0.5), NGDiff()], ids=["none", "fixed", "ngdiff"])
@pytest.mark.parametrize("engine_name", ["torch", "deepspeed", "deepspeed1"])
def test_a_batch_and_its_rows_one_by_one_give_the_same_parameters(
    engine_name, balancer, make_engine, tiny_model, tiny_batch, micro_batches
):
    batch = tiny_batch(rows=8)
    whole, split = make_engine(engine_name, tiny_model()), make_engine(engine_name, tiny_model())
    first, second = run(whole, [[batch]], balancer), run(split, [micro_batches(batch, 1)], balancer)
    for name in ("loss/total", "balance/weight", "grad/norm", "grad/perception", "grad/reasoning"):
        assert first.values[0][name] == pytest.approx(second.values[0][name], rel=1e-5)
    # Adam divides by the gradient's own size, so a gradient of rounding noise moves a parameter by up to lr = 1e-3: two in 1e4 may.
    gaps = torch.cat([(a - b).abs().flatten() for a, b in zip(whole.model.parameters(), split.model.parameters(), strict=True)])
    assert gaps.quantile(0.9998).item() < 1e-6


@pytest.mark.parametrize(
    ("engine_name", "balancer"), [("deepspeed", NoBalance()), ("deepspeed", NGDiff()), ("deepspeed1", NGDiff())], ids=str
)
def test_both_engines_give_the_same_twenty_losses(engine_name, balancer, make_engine, tiny_model, tiny_batch):
    windows = [[tiny_batch(rows=2, seed=step % 2)] for step in range(20)]
    reference, other = (run(make_engine(name, tiny_model()), windows, balancer) for name in ("torch", engine_name))
    for name in ("loss/total", "loss/perception", "loss/reasoning", "balance/weight"):
        ours, theirs = ([values[name] for values in record.values] for record in (other, reference))
        assert ours == pytest.approx(theirs, rel=1e-4), name
    assert reference.values[-1]["loss/total"] < 0.8 * reference.values[0]["loss/total"]  # The curve is not flat.


def test_the_prefix_gives_the_whole_gradient_of_perception(make_engine, tiny_model, tiny_batch):
    batch = tiny_batch(rows=8)
    prefix = batch.until(P)
    assert prefix.ids.shape[1] < 0.75 * batch.ids.shape[1]
    short, long = make_engine("torch", tiny_model()), make_engine("torch", tiny_model())
    for engine, part in ((short, prefix), (long, batch)):
        backward(engine, [part], {P: 1.0}, counts_of([batch]))
    assert relative(gradients(short.model), gradients(long.model)) < 1e-5


@pytest.mark.parametrize("most", [8, 5])
def test_joined_prefixes_give_the_gradient_of_separate_ones(most, make_engine, tiny_model, tiny_batch):
    window = [tiny_batch(rows=rows, seed=rows) for rows in (3, 1, 4)]
    joined, apart = make_engine("torch", tiny_model()), make_engine("torch", tiny_model())
    together = prefixes(window, P, most)
    assert [len(batch.ids) for batch in together] == ([8] if most == 8 else [4, 4])
    for engine, parts in ((joined, together), (apart, window)):
        sums = backward(engine, parts, {P: 1.0}, counts_of(window))
        assert sums[P] > 0
    assert relative(gradients(joined.model), gradients(apart.model)) < 1e-5


def test_joined_batches_keep_the_pictures_of_those_that_have_some(tiny_batch):
    pictured = tiny_batch(rows=2)
    without = replace(tiny_batch(rows=1, seed=9), inputs={})
    for batches in ([without, pictured], [pictured, without]):
        together = Batch.joined(batches)
        assert together.inputs.keys() == pictured.inputs.keys()
        assert all(torch.equal(together.inputs[name], value) for name, value in pictured.inputs.items())
        assert counts_of([together]) == counts_of(batches)
        assert int(together.mask.sum()) == sum(int(batch.mask.sum()) for batch in batches)


@pytest.mark.parametrize("span", list(Span), ids=str)
def test_each_loss_reaches_every_part_of_the_model(span, make_engine, tiny_model, tiny_batch):
    engine, batch = make_engine("torch", tiny_model(tied=False)), tiny_batch()
    backward(engine, [batch], {span: 1.0}, counts_of([batch]))
    for part in (*engine.model.model.children(), engine.model.lm_head):
        assert any(float(parameter.grad.norm()) > 0 for parameter in part.parameters())
    still = [name for name, value in gradients(engine.model).items() if float(value.norm()) == 0]
    assert still == []
