"""The policy objective: a loss l_t and a coefficient c_t for each token, to be summed.

    L = sum_t c_t (l_t + kl * k3_t)

Unlike the losses of most frameworks, it does not average over a micro-batch: c_t divides by counts of the whole optimizer step, over all
ranks, so for every split into micro-batches the sum is the loss of the step. Shapes: B rollouts, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from percasym.config.paradigm import PolicyLoss
from percasym.objectives.coefficients import coefficients
from percasym.types import UNSUPERVISED, Span


def clipped_policy_loss(
    logprobs: Tensor, sampled: Tensor, advantages: Tensor, mask: Tensor, *, loss: PolicyLoss, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate of each token, [B, T], and which tokens are clipped, [B, T] bool: those have no gradient.

        l_t = -min(r_t A_t, clip(r_t, 1 - clip_low, 1 + clip_high) A_t)
        r_t = exp(logprobs_t - sampled_t)                                     grpo, dr_grpo, dapo
        r_t = exp(mean over the tokens of the row of (logprobs - sampled))    gspo: one ratio for all of them

    - logprobs [B, T]: of the model in training, with gradient. sampled [B, T]: of the model that sampled.
    - advantages [B, T]: of tokens, because they may differ by span (under gspo, one for each row).
    - mask [B, T] bool: the tokens of the completions. Elsewhere loss and gradient are exactly 0, whatever the other inputs are.

    A token is clipped above the range for A > 0 and below it for A < 0; on the other side its gradient points back into the range.
    At the policy that sampled, r = 1 and the gradient is that of -A logprob.

    Source: Schulman et al. 2017, PPO (arXiv:1707.06347), eq. 7, as in GRPO (arXiv:2402.03300), eq. 3; two bounds,
    DAPO (arXiv:2503.14476), section 3.1; the ratio of a sequence, GSPO (arXiv:2507.18071), eq. 5 and 7.
    """
    log_ratio = (logprobs - sampled).masked_fill(~mask, 0.0)
    if loss == "gspo":
        log_ratio = (log_ratio.sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)).expand_as(log_ratio)
    ratio, advantages = log_ratio.exp(), advantages.masked_fill(~mask, 0.0)
    free, bounded = ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages
    return -torch.minimum(free, bounded), bounded < free


def importance_weights(trained: Tensor, sampled: Tensor, mask: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """The truncated importance weight of each token, [B, T], and which tokens are truncated, [B, T] bool.

        w_t = min(exp(trained_t - sampled_t), cap)

    It corrects the gradient for tokens that another engine sampled, whose kernels and number format give the same weights other
    probabilities; the cap bounds its variance. The clipped surrogate then has the ratio to `trained`, not to `sampled`.

    - trained [B, T]: log-probabilities under the trainer with the weights that sampled. sampled [B, T]: as the sampler reports them.
    - mask [B, T] bool: the tokens of the completions; elsewhere the weight is 0.

    Source: Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training"; truncation after Ionides 2008.

    >>> from torch import tensor
    >>> weights, truncated = importance_weights(tensor([[0.0, 2.0]]), tensor([[0.0, 0.0]]), tensor([[True, True]]), cap=2.0)
    >>> weights.tolist(), truncated.tolist()
    ([[1.0, 2.0]], [[False, True]])
    """
    ratio = (trained - sampled).masked_fill(~mask, 0.0).exp()
    return ratio.clamp(max=cap).masked_fill(~mask, 0.0), (ratio > cap) & mask


def normalisers(
    labels: Tensor,
    *,
    loss: PolicyLoss,
    num_rollouts: int,
    counts: Sequence[int],
    max_new_tokens: int,
    token_weight: float | None = None,
) -> Tensor:
    """[B, T] float32: the coefficient c_t of each supervised token, zero elsewhere.

        grpo, gspo   1 / (N |o_i|)     each rollout counts the same, so a token of a long one counts less (arXiv:2402.03300, eq. 3;
                                       under gspo every token has the loss of its rollout: arXiv:2507.18071, eq. 5)
        dr_grpo      1 / (N M)         M: the token limit, a constant, independent of length (arXiv:2503.20783)
        dapo         1 / (N_p + N_r)   each token counts the same (arXiv:2503.14476, section 3.3, over the step instead of a group)

    With a `token_weight` w instead: w / N_p on perception tokens and (1 - w) / N_r on reasoning tokens, the token reweighting of
    arXiv:2605.29496, as in SFT.

    - labels [B, T]: a `Span`, or UNSUPERVISED. |o_i|: supervised tokens of the row.
    - num_rollouts: N, of the whole step over all ranks, those left out of the loss included (as in TRL).
    - counts: (N_p, N_r), supervised tokens of the whole step over all ranks. max_new_tokens: M.
    """
    if token_weight is not None:
        return coefficients(labels, {Span.perception: token_weight, Span.reasoning: 1 - token_weight}, counts)
    mask = (labels != UNSUPERVISED).float()
    if loss == "dapo":
        return mask / max(1, sum(counts))
    lengths = max_new_tokens if loss == "dr_grpo" else mask.sum(1, keepdim=True).clamp(min=1)
    return mask / (num_rollouts * lengths)


def kl_k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """[B, T]: the k3 estimate of KL(model || reference) from each sampled token; never negative, 0 where both agree.

        k3 = exp(d) - d - 1,   d = reference - logprobs

    `logprobs` [B, T] is of the model in training, with gradient, `reference` [B, T] of the reference model. It is unbiased
    for tokens sampled from the current model.

    Source: Schulman 2020, "Approximating KL divergence" (k3), as in GRPO (arXiv:2402.03300), eq. 4.
    """
    gap = reference - logprobs
    return gap.expm1() - gap  # exp(gap) - gap - 1 would round to below zero for small gaps.
