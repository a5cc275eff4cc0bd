"""Each term of the policy objective: its value by hand, its gradient, and what must have none."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from percasym.objectives.coefficients import span_counts
from percasym.objectives.policy import clipped_policy_loss, kl_k3, normalisers
from percasym.types import UNSUPERVISED, Span

P, R, NONE = Span.perception, Span.reasoning, UNSUPERVISED
LOSSES = ["grpo", "dr_grpo", "dapo", "gspo"]
TOKENWISE = ["grpo", "dr_grpo", "dapo"]
LABELS = tensor([[NONE, NONE, P, R, R, R], [NONE, P, P, R, NONE, NONE], [NONE, NONE, NONE, P, R, NONE], [NONE, P, P, P, R, R]])


def gradient(term: Callable[[torch.Tensor], torch.Tensor], at: torch.Tensor) -> torch.Tensor:
    """Of the sum of `term` at `at`."""
    at = at.clone().requires_grad_()
    term(at).sum().backward()
    return at.grad


def random_step(seed=0):
    """(logprobs, sampled, advantages, mask) of LABELS; ratios from 0.5 to 2."""
    draw = torch.Generator().manual_seed(seed)
    mask = LABELS != NONE
    logprobs = -3 * torch.rand(LABELS.shape, generator=draw) * mask
    sampled = (logprobs + 1.4 * torch.rand(LABELS.shape, generator=draw) - 0.7) * mask
    return logprobs, sampled, torch.randn(4, 1, generator=draw).expand(LABELS.shape), mask


def coefficients_of(labels, loss, **options):
    step = {"num_rollouts": len(LABELS), "counts": span_counts([LABELS]).tolist(), "max_new_tokens": 8}
    return normalisers(labels, loss=loss, **step | options)


@pytest.mark.parametrize("loss", TOKENWISE)
def test_the_surrogate_is_clipped_only_where_it_would_lead_further_away(loss):
    ratios = tensor([[1.5, 1.5, 0.5, 0.5, 1.1]])
    advantages = tensor([[2.0, -2.0, 2.0, -2.0, 2.0]])
    mask = torch.ones(1, 5, dtype=torch.bool)

    def losses(logprobs):
        return clipped_policy_loss(logprobs, torch.zeros(1, 5), advantages, mask, loss=loss, clip_low=0.2, clip_high=0.3)

    # min(1.5 * 2, 1.3 * 2), min(-3, -2.6), min(1, 1.6), min(-1, -1.6), min(2.2, 2.2), each with its sign turned.
    value, clipped = losses(ratios.log())
    assert_close(value, tensor([[-2.6, 3.0, -1.0, 1.6, -2.2]]))
    assert clipped.tolist() == [[True, False, False, True, False]]
    # Where it is not clipped, d(-r A) / d logprob = -r A.
    assert_close(gradient(lambda at: losses(at)[0], ratios.log()), tensor([[0.0, 3.0, -1.0, 0.0, -2.2]]))


def test_the_ratio_of_gspo_is_that_of_the_whole_completion():
    # Ratios 4 and 1, so s = (4 * 1) ** (1 / 2) = 2; the last position is padding. A = -1 is not clipped above, A = 1 is.
    logprobs, mask = tensor([[math.log(4), 0.0, 0.0]]).expand(2, -1), tensor([[True, True, False]]).expand(2, -1)
    advantages, sampled = tensor([[-1.0], [1.0]]).expand(2, 3), torch.zeros(2, 3)

    def losses(logprobs):
        return clipped_policy_loss(logprobs, sampled, advantages, mask, loss="gspo", clip_low=0.2, clip_high=0.2)

    value, clipped = losses(logprobs)
    assert_close(value, tensor([[2.0, 2.0, 0.0], [-1.2, -1.2, 0.0]]))
    assert clipped.tolist() == [[False] * 3, [True, True, False]]
    # Two tokens that each hold s: d(2 s) / d logprob_t = 2 * s / 2 = 2; a clipped sequence has no gradient at all.
    assert_close(gradient(lambda at: losses(at)[0], logprobs), tensor([[2.0, 2.0, 0.0], [0.0, 0.0, 0.0]]))


@pytest.mark.parametrize("loss", LOSSES)
def test_on_the_policy_that_sampled_the_gradient_is_the_plain_policy_gradient(loss):
    logprobs, _, advantages, mask = random_step()
    slope = gradient(lambda at: clipped_policy_loss(at, logprobs, advantages, mask, loss=loss, clip_low=0.2, clip_high=0.2)[0], logprobs)
    assert_close(slope, -advantages * mask)
    slope = gradient(lambda at: clipped_policy_loss(at, logprobs, advantages, mask, loss=loss, clip_low=0.0, clip_high=0.0)[0], logprobs)
    assert_close(slope, -advantages * mask)  # On the edge of the range is still inside.


@pytest.mark.parametrize("loss", LOSSES)
def test_exactly_the_tokens_that_are_not_clipped_have_a_gradient(loss):
    logprobs, sampled, advantages, mask = random_step()
    options = {"loss": loss, "clip_low": 0.02, "clip_high": 0.02}
    _, clipped = clipped_policy_loss(logprobs, sampled, advantages, mask, **options)
    slope = gradient(lambda at: clipped_policy_loss(at, sampled, advantages, mask, **options)[0], logprobs)
    assert clipped.any()
    assert (slope != 0).tolist() == (mask & ~clipped).tolist()


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -1e30])
@pytest.mark.parametrize("loss", LOSSES)
def test_tokens_outside_a_completion_have_no_effect(loss, garbage):
    logprobs, sampled, advantages, mask = random_step()
    options = {"loss": loss, "clip_low": 0.2, "clip_high": 0.2}
    soiled = [values.masked_fill(~mask, garbage) for values in (sampled, advantages)]
    value, clipped = clipped_policy_loss(logprobs, *soiled, mask, **options)
    slope = gradient(lambda at: clipped_policy_loss(at, *soiled, mask, **options)[0] * coefficients_of(LABELS, loss), logprobs)
    for outside in (value, clipped, slope):
        assert outside[~mask].count_nonzero() == 0
    clean, _ = clipped_policy_loss(logprobs, sampled, advantages, mask, **options)
    assert torch.equal(value, clean)
    assert slope.count_nonzero() > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_a_rollout_left_out_of_the_loss_changes_no_other(loss):
    logprobs, sampled, advantages, mask = random_step()
    options = {"loss": loss, "clip_low": 0.2, "clip_high": 0.2}
    fewer = mask.clone()
    fewer[1] = False
    value, _ = clipped_policy_loss(logprobs, sampled, advantages, fewer, **options)
    whole, _ = clipped_policy_loss(logprobs, sampled, advantages, mask, **options)
    assert value[1].count_nonzero() == 0
    assert torch.equal(value[[0, 2, 3]], whole[[0, 2, 3]])


def test_coefficients_say_what_counts_the_same():
    labels = tensor([[NONE, P, R, R, R], [NONE, P, NONE, NONE, NONE]])  # 4 tokens and 1; 2 of perception, 3 of reasoning

    def of(loss, **options):
        return normalisers(labels, loss=loss, num_rollouts=2, counts=(2, 3), max_new_tokens=10, **options)

    # Each rollout 1/2, shared by its tokens: 1 / (2 * 4) and 1 / (2 * 1).
    for loss in ("grpo", "gspo"):
        assert_close(of(loss), tensor([[0, 0.125, 0.125, 0.125, 0.125], [0, 0.5, 0, 0, 0]]))
    assert_close(of("dr_grpo"), tensor([[0, 0.05, 0.05, 0.05, 0.05], [0, 0.05, 0, 0, 0]]))  # 1 / (2 * 10)
    assert_close(of("dapo"), tensor([[0, 0.2, 0.2, 0.2, 0.2], [0, 0.2, 0, 0, 0]]))  # 1 / 5
    for loss in TOKENWISE:  # w = 0.8: 0.8 / 2 on perception, 0.2 / 3 on reasoning.
        assert_close(of(loss, token_weight=0.8), tensor([[0, 0.4, 0.2 / 3, 0.2 / 3, 0.2 / 3], [0, 0.4, 0, 0, 0]]))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_without_a_single_token_has_coefficients_of_zero(loss):
    assert coefficients_of(torch.full((2, 3), NONE), loss, counts=(0, 0)).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("options", [{}, {"token_weight": 0.3}])
@pytest.mark.parametrize("loss", LOSSES)
def test_micro_batches_change_neither_loss_nor_gradient(loss, options, rows):
    logprobs, sampled, advantages, mask = random_step()

    def total(at, part):
        value, _ = clipped_policy_loss(at[part], sampled[part], advantages[part], mask[part], loss=loss, clip_low=0.2, clip_high=0.2)
        return (coefficients_of(LABELS[part], loss, **options) * (value + 0.1 * kl_k3(at[part], sampled[part]))).sum()

    parts = [slice(at, at + rows) for at in range(0, len(LABELS), rows)]
    assert_close(sum(total(logprobs, part) for part in parts), total(logprobs, slice(None)))
    assert_close(
        gradient(lambda at: sum(total(at, part) for part in parts), logprobs), gradient(lambda at: total(at, slice(None)), logprobs)
    )


def test_k3_by_hand():
    # The reference likes the token twice as much, d = log 2: 2 - log 2 - 1 = 0.3069, and d k3 / d logprob = 1 - 2.
    # Half as much: 0.5 + log 2 - 1 = 0.1931, and 1 - 0.5. The same: 0 and 0.
    logprobs, reference = tensor([[-2.0, -2.0, -2.0]]), tensor([[-2.0 + math.log(2), -2.0 - math.log(2), -2.0]])
    assert_close(kl_k3(logprobs, reference), tensor([[0.3068528, 0.1931472, 0.0]]))
    assert_close(gradient(lambda at: kl_k3(at, reference), logprobs), tensor([[-1.0, 0.5, 0.0]]))


def test_the_mean_of_k3_over_what_the_model_samples_is_the_divergence():
    model, reference = tensor([0.5, 0.3, 0.2]), tensor([0.2, 0.2, 0.6])
    assert_close((model * kl_k3(model.log(), reference.log())).sum(), (model * (model / reference).log()).sum())


def test_k3_is_never_negative_where_its_textbook_form_is():
    gap = torch.linspace(-1e-3, 1e-3, 10_001)
    assert (gap.exp() - gap - 1).min() < 0
    assert kl_k3(torch.zeros_like(gap), gap).min() >= 0


TERMS = {
    **{
        loss: lambda at, loss=loss: clipped_policy_loss(at, random_step()[1], *random_step()[2:], loss=loss, clip_low=0.2, clip_high=0.2)[0]
        for loss in LOSSES
    },
    "k3": lambda at: kl_k3(at, random_step()[1]),
}


@pytest.mark.parametrize("name", TERMS)
def test_every_term_trains(name):
    assert gradient(TERMS[name], random_step()[0]).count_nonzero() >= 3


@pytest.mark.parametrize("name", TERMS)
def test_a_term_that_forgets_its_gradient_would_be_noticed(name):
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient(torch.no_grad()(TERMS[name]), random_step()[0])
