"""The policy objective beside TRL's, written out from the published equations as TRL computes them (trl 1.x, GRPOTrainer).

TRL averages over a micro-batch and divides by the number of micro-batches; ours sums shares of the step.
"""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from percasym.objectives.advantages import group_normalized, mixed, on_spans
from percasym.objectives.coefficients import span_counts
from percasym.objectives.policy import clipped_policy_loss, kl_k3, normalisers
from percasym.types import UNSUPERVISED, Span

LOSSES = ["grpo", "dr_grpo", "dapo", "gspo"]
LIMIT, LOW, HIGH, BETA, NUM_ROLLOUTS = 12, 0.2, 0.28, 0.04, 8
EXACT = {"rtol": 1e-6, "atol": 1e-6}


def rollouts(seed):
    """Right-padded completions of 1 to LIMIT tokens: (logprobs, sampled, reference, advantages, labels)."""
    draw = torch.Generator().manual_seed(seed)
    shape = (NUM_ROLLOUTS, LIMIT)
    at, lengths = torch.arange(LIMIT), torch.randint(1, LIMIT + 1, (NUM_ROLLOUTS, 1), generator=draw)
    labels = torch.where(at < lengths, torch.where(at < lengths // 3, Span.perception, Span.reasoning), UNSUPERVISED)
    logprobs = -4 * torch.rand(shape, generator=draw)
    sampled, reference = (logprobs + 0.5 * torch.randn(shape, generator=draw) for _ in range(2))
    return logprobs, sampled, reference, torch.randn(NUM_ROLLOUTS, generator=draw), labels


def ours(logprobs, sampled, reference, advantages, labels, loss):
    """Summed over single rollouts, each its own micro-batch."""
    counts = span_counts([labels]).tolist()
    total = torch.zeros(())
    for i in range(NUM_ROLLOUTS):
        row = slice(i, i + 1)
        each = on_spans(labels[row], advantages[row], advantages[row])
        value, _ = clipped_policy_loss(
            logprobs[row], sampled[row], each, labels[row] != UNSUPERVISED, loss=loss, clip_low=LOW, clip_high=HIGH
        )
        weights = normalisers(labels[row], loss=loss, num_rollouts=NUM_ROLLOUTS, counts=counts, max_new_tokens=LIMIT)
        total = total + (weights * (value + BETA * kl_k3(logprobs[row], reference[row]))).sum()
    return total


def theirs(logprobs, sampled, reference, advantages, labels, loss, num_micro_batches):
    """The mean over micro-batches of TRL's loss of each; its token-level loss divides by the tokens of them all."""
    mask = (labels != UNSUPERVISED).float()
    ratio = (logprobs - sampled).exp()
    if loss == "gspo":  # importance_sampling_level="sequence", loss_type="grpo"
        ratio = (((logprobs - sampled) * mask).sum(-1) / mask.sum(-1)).exp()[:, None]
    one_or_all = torch.min(ratio * advantages[:, None], torch.clamp(ratio, 1 - LOW, 1 + HIGH) * advantages[:, None])
    each = -one_or_all + BETA * (torch.exp(reference - logprobs) - (reference - logprobs) - 1)
    losses = []
    for part, own in zip(each.chunk(num_micro_batches), mask.chunk(num_micro_batches), strict=True):
        if loss in ("grpo", "gspo"):
            losses.append(((part * own).sum(-1) / own.sum(-1)).mean() / num_micro_batches)
        elif loss == "dr_grpo":
            losses.append((part * own).sum() / (len(part) * LIMIT) / num_micro_batches)
        else:
            losses.append((part * own).sum() / mask.sum())
    return sum(losses)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("num_micro_batches", [1, 4])
@pytest.mark.parametrize("loss", LOSSES)
def test_loss_and_gradient_are_those_of_trl(loss, num_micro_batches, seed):
    logprobs, *others = rollouts(seed)
    mine, other = logprobs.clone().requires_grad_(), logprobs.clone().requires_grad_()
    value, expected = ours(mine, *others, loss), theirs(other, *others, loss, num_micro_batches)
    assert_close(value, expected, **EXACT)
    value.backward()
    expected.backward()
    assert_close(mine.grad, other.grad, **EXACT)
    assert mine.grad.count_nonzero() > NUM_ROLLOUTS


@pytest.mark.parametrize("scale", [True, False])
def test_group_advantages_are_those_of_trl(scale):
    rewards = torch.rand(6, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = rewards - rewards.mean(1, keepdim=True)
    if scale:
        expected = expected / (rewards.std(1, keepdim=True) + 1e-4)
    assert_close(group_normalized(rewards, scale), expected, **EXACT)


@pytest.mark.parametrize("weight", [0.1, 0.5])
def test_mixed_advantages_are_those_of_trl(weight):
    draw = torch.Generator().manual_seed(1)
    perception, outcome = ((torch.rand(6, 8, generator=draw) < 0.4).double() for _ in range(2))
    summed = weight * perception + (1 - weight) * outcome
    expected = (summed - summed.mean(1, keepdim=True)) / (summed.std(1, keepdim=True) + 1e-4)
    assert_close(mixed(perception, outcome, weight, "sum_then_normalize", normalize=True), expected, **EXACT)

    rewards, weights = torch.stack([perception, outcome], -1), torch.tensor([weight, 1 - weight]).double()
    apart = (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, keepdim=True) + 1e-4)
    summed = (apart * weights).sum(-1)
    expected = (summed - summed.mean()) / (summed.std() + 1e-4)
    assert_close(mixed(perception, outcome, weight, "normalize_then_sum", normalize=True), expected, **EXACT)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_first_update_of_a_model_is_that_of_its_weighted_likelihood(loss, make_engine, tiny_model, tiny_batch):
    batch, limit = tiny_batch(), 32
    advantages = torch.tensor([1.0, -0.5, 0.25, -2.0])
    engine, plain = (make_engine("torch", tiny_model()) for _ in range(2))
    counts = span_counts([batch.labels]).tolist()
    weights = normalisers(batch.labels, loss=loss, num_rollouts=4, counts=counts, max_new_tokens=limit)
    each, mask = on_spans(batch.labels, advantages, advantages), batch.labels != UNSUPERVISED

    logprobs = -engine.nll(batch)
    value, clipped = clipped_policy_loss(logprobs, logprobs.detach(), each, mask, loss=loss, clip_low=LOW, clip_high=HIGH)
    engine.backward((weights * value).sum())
    plain.backward((weights * each * plain.nll(batch)).sum())
    assert not clipped.any()
    for mine, other in zip(engine.model.parameters(), plain.model.parameters(), strict=True):
        assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-7)
    assert engine.step(1e-3).grad_norm == pytest.approx(plain.step(1e-3).grad_norm) != 0
