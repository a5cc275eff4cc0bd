"""Norms at the last hidden state, against one backward pass per token."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from percasym.engine.hidden_norms import HiddenNorms
from percasym.objectives.coefficients import coefficients, span_counts
from percasym.types import UNSUPERVISED, Span

P, R = Span.perception, Span.reasoning
ENGINES = ["torch", "deepspeed", "deepspeed2", "deepspeed3"]


def backward(engine, batch, weights, counts=None):
    counts = counts or tuple(span_counts([batch.labels]).tolist())
    engine.backward(engine.loss(batch, coefficients(batch.labels, weights, counts))[0])


def by_hand(model, batch) -> list[float]:
    """Sum over the tokens of each span of |d nll_t / d H|^2, with H all last hidden states."""
    hidden = model.model(**batch.arguments).last_hidden_state  # [B, T, D]
    nll = cross_entropy(model.lm_head(hidden)[:, :-1].transpose(1, 2), batch.ids[:, 1:], reduction="none")  # [B, T - 1]

    def square(loss) -> float:
        return float(torch.autograd.grad(loss, hidden, retain_graph=True)[0].double().square().sum())

    return [sum(square(loss) for loss in nll[batch.labels[:, 1:] == span]) for span in Span]


@pytest.mark.parametrize("name", ENGINES)
def test_one_backward_equals_one_backward_per_token(name, make_engine, tiny_qwen, tiny_batch, micro_batches):
    engine, batch = make_engine(name, tiny_qwen()), tiny_batch()
    hidden_norms, expected = engine.hidden_norms(), by_hand(tiny_qwen(), batch)
    counts = tuple(span_counts([batch.labels]).tolist())
    for window in ([batch], micro_batches(batch, rows=1)):
        for part in window:
            backward(engine, part, {P: 0.03, R: 0.97}, counts)
        assert hidden_norms.take().tolist() == pytest.approx(expected, rel=1e-4)
    engine.step(1e-3)


def test_a_span_without_a_weight_is_not_reached_and_the_prefix_is_enough_for_perception(make_engine, tiny_qwen, tiny_batch):
    engine, batch = make_engine("torch", tiny_qwen()), tiny_batch()
    hidden_norms, (perception, reasoning) = engine.hidden_norms(), by_hand(tiny_qwen(), batch)
    backward(engine, batch.until(P), {P: 1.0})
    assert hidden_norms.take().tolist() == [pytest.approx(perception, rel=1e-4), 0.0]
    backward(engine, batch, {R: 1.0})
    assert hidden_norms.take().tolist() == [0.0, pytest.approx(reasoning, rel=1e-4)]


def test_decoding_between_two_steps_has_no_effect(make_engine, tiny_qwen, tiny_batch):
    engine, batch = make_engine("torch", tiny_qwen()), tiny_batch()
    hidden_norms, expected = engine.hidden_norms(), by_hand(tiny_qwen(), batch)
    with engine.gathered_weights() as model, torch.no_grad():
        model(**batch.arguments)
    assert hidden_norms.take().tolist() == [0.0, 0.0]
    backward(engine, batch, {P: 0.5, R: 0.5})
    assert hidden_norms.take().tolist() == pytest.approx(expected, rel=1e-4)


def test_the_hooks_do_not_change_the_gradient(make_engine, tiny_qwen, tiny_batch):
    hooked, plain, batch = make_engine("torch", tiny_qwen()), make_engine("torch", tiny_qwen()), tiny_batch()
    hooked.hidden_norms()
    for engine in (hooked, plain):
        backward(engine, batch, {P: 0.5, R: 0.5})
    pairs = zip(hooked.model.parameters(), plain.model.parameters(), strict=True)
    assert all(torch.equal(ours.grad, theirs.grad) for ours, theirs in pairs if theirs.grad is not None)


def test_a_norm_worked_out_by_hand():
    # Two hidden states of two numbers; the token after the first loses 3 h[0] + 4 h[1], slope 5; its loss is weighted by 0.1.
    trunk = torch.nn.Module()
    trunk.forward = lambda: SimpleNamespace(last_hidden_state=torch.ones(1, 2, 2, requires_grad=True) * 1.0)
    hidden_norms, labels = HiddenNorms(trunk), torch.tensor([[UNSUPERVISED, P]])
    hidden = trunk().last_hidden_state
    nll = torch.stack([hidden[:, 0, 0] * 0, hidden[:, 0] @ torch.tensor([3.0, 4.0])], dim=1)  # [B, T]
    loss = (0.1 * nll[:, 1]).sum()
    hidden_norms.attach(loss, torch.tensor([[0.0, 0.1]]), labels)
    (7 * loss).backward()  # As an engine does that averages over seven ranks.
    assert hidden_norms.take().tolist() == [pytest.approx(25.0), 0.0]
