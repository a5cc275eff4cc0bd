"""Weights in bfloat16 beside float32 masters (`engine.weights=bfloat16`, ZeRO-3): how far they are from float32, and what stays exact."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from percasym.balance.ngdiff import NGDiff
from percasym.config.paradigm import Sft
from percasym.engine.precision import inference, rounded
from percasym.models.qwen3 import Qwen3Step
from percasym.objectives.coefficients import coefficients, span_counts
from percasym.objectives.token_nll import TokenNll, supervised
from percasym.training.sft import train
from percasym.types import Span
from tests.recording import Record

BF16, CPU = torch.bfloat16, torch.device("cpu")
NAMES = ["deepspeed3-rounded", "deepspeed3-rounded-offload"]


@pytest.fixture
def representable(tiny_qwen):
    """A tiny model whose weights are numbers of bfloat16, as those of a released checkpoint are."""

    def make():
        model = tiny_qwen(tied=False)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(BF16).float()
        return model

    return make


def measured(engine, batch):
    counts = tuple(span_counts([batch.labels]).tolist())
    for span in Span:
        engine.backward(engine.loss(batch, coefficients(batch.labels, {span: 1.0}, counts))[0])
        engine.keep_gradient(span)
    return engine.gramian()


@pytest.mark.parametrize("name", NAMES)
def test_span_gradients_are_those_of_float32_to_two_percent(name, make_engine, representable, tiny_batch):
    batch = tiny_batch(rows=8)
    exact, near = (measured(make_engine(kind, representable()), batch) for kind in ("torch", name))
    assert near.norms == pytest.approx(exact.norms, rel=0.02)
    assert near.cosine == pytest.approx(exact.cosine, abs=0.01)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if "offload" in name else []) for name in NAMES])
def test_training_follows_float32(name, make_engine, representable, tiny_batch):
    curves = {}
    for kind in ("torch", name):
        record = Record()
        settings = Sft(steps=12, batch_size=8, micro_batch_size=8, lr=1e-3, warmup_frac=0.0)
        engine, windows = make_engine(kind, representable()), [[tiny_batch(rows=8, seed=0)] for _ in range(12)]
        train(engine=engine, batches=windows, balancer=NGDiff(), settings=settings, run=record, evaluate=lambda step: None)
        curves[kind] = {key: [values[key] for values in record.values] for key in ("loss/total", "balance/weight")}
    exact, near = curves["torch"], curves[name]
    assert exact["loss/total"][-1] < 0.9 * exact["loss/total"][0]
    assert near["loss/total"] == pytest.approx(exact["loss/total"], rel=0.01)
    assert near["balance/weight"] == pytest.approx(exact["balance/weight"], rel=0.03)


def test_updates_below_the_resolution_of_the_weights_add_up(make_engine, representable, tiny_batch):
    # AdamW moves about one rate a step: 1e-6 on weights of 0.1, where bfloat16 has steps of 0.0005. Without masters all would be lost.
    engine, batch = make_engine("deepspeed3-rounded", representable()), tiny_batch(rows=8)
    before = [master.detach().clone() for master in engine._updater._masters]
    for _ in range(3):
        measured(engine, batch)
        engine.combine(dict.fromkeys(Span, 0.5))
        engine.step(1e-6)
    moved = torch.cat([(master.detach() - old).abs().flatten() for master, old in zip(engine._updater._masters, before, strict=True)])
    assert 1e-6 < float(moved.median()) < 4e-6
    with engine.whole_weights() as model:
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}, "what is saved are the masters"
    assert {parameter.dtype for parameter in engine.model.parameters()} == {BF16}


def test_the_kept_gradient_of_a_span_has_the_type_of_the_weights(make_engine, representable, tiny_batch):
    engine = make_engine("deepspeed3-rounded", representable())
    measured(engine, tiny_batch())
    first, second = (engine.kept_gradient(span) for span in Span)
    assert [part.dtype for part in first] == [BF16] * len(first)
    assert [part.dtype for part in second] == [torch.float32] * len(second), "the open one is not copied"
    with pytest.raises(AssertionError, match="combine them before another backward pass"):
        engine.backward(torch.zeros((), requires_grad=True))


@pytest.mark.parametrize("name", ["deepspeed3", "deepspeed3-offload"])
def test_the_second_gradient_of_a_step_is_no_copy(name, make_engine, tiny_qwen, tiny_batch):
    engine = make_engine(name, tiny_qwen())
    measured(engine, tiny_batch())
    zero = engine._updater._zero
    buffers = [zero.grad_partitions_flat_buffer, *(master.grad for master in engine._updater._masters if master.grad is not None)]
    owned = {buffer.untyped_storage().data_ptr() for buffer in buffers}
    first, second = ({part.untyped_storage().data_ptr() for part in engine.kept_gradient(span)} for span in Span)
    assert second <= owned and not first & owned


def test_only_gains_biases_and_embeddings_differ_from_float32_weights_under_autocast(representable, tiny_batch):
    batch = tiny_batch()
    at, losses = supervised(batch.labels), []
    for prepare in (lambda model: model, lambda model: rounded(model, BF16)):
        model = prepare(representable())
        with torch.no_grad():
            losses.append(TokenNll(model, dtype=BF16)(at, **batch.arguments))
        with torch.autocast("cpu", dtype=BF16):
            assert model.model(**batch.arguments).last_hidden_state.dtype == torch.float32, "the residual stream"
    assert_close(*losses, rtol=0.02, atol=0.02)


def test_positions_of_a_decoding_step_are_not_rounded(representable):
    model = rounded(representable(), BF16).eval()
    with inference(model, CPU):
        step = Qwen3Step.of(model, 300)
    assert step is not None
    exact = Qwen3Step.of(representable().eval(), 300)
    assert_close(step.cos, exact.cos, rtol=0, atol=0)
    assert step.sin.dtype == torch.float32


def test_a_cache_of_keys_takes_the_type_of_the_values():
    from percasym.rollout.cache import RoomyCache

    cache = RoomyCache(1, 4)
    cache.update(torch.ones(1, 1, 2, 4), torch.ones(1, 1, 2, 4, dtype=BF16), 0)
    keys, values = cache.update(torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 4, dtype=BF16), 0)
    assert keys.dtype == values.dtype == BF16
    assert (cache.get_seq_length(), cache.get_max_length(), cache.get_mask_sizes(2, 0)) == (3, 4, (5, 0))


def test_a_norm_does_not_round_its_gain_a_second_time():
    from percasym.models.qwen3 import rms_norm_with

    draw = torch.Generator().manual_seed(0)
    gain, states = torch.rand(32, generator=draw).to(BF16), torch.randn(3, 32, generator=draw)
    expected = states * (states.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * gain.float()
    assert_close(rms_norm_with(gain, 1e-6)(states), expected, rtol=1e-5, atol=1e-6)
