"""Cross-entropy fused with the linear head that computes the logits, one chunk of tokens after another.

With s = softmax(logits) - onehot(target) of a token and u the upstream gradient of its loss:

    d hidden = u (s W),   d weight = sum over tokens of s^T (u hidden)

Two autograd functions for two cases: u is known in the backward pass only, or in the forward pass up to a factor.
Suffixes: N tokens (n of a chunk), D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from percasym.objectives.onednn import product


class LinearNll(torch.autograd.Function):
    """The losses, for u known in the backward pass only.

    s W does not depend on u and is computed while the logits exist. A trained head needs the logits twice, unless all tokens fit in one
    chunk.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, rows: int, needs_grad: bool) -> Tensor:
        """[N] float32 losses from `hidden` [N, D] in the compute type and `weight` [V, D] in its own."""
        nll, d_hidden, dlogits = _losses(hidden), torch.empty_like(hidden) if needs_grad else None, None
        cast = weight.to(hidden.dtype)
        for at, logprobs in _chunks(hidden, cast, rows):
            nll[at] = _of_targets(logprobs, targets[at])
            if d_hidden is not None:
                dlogits = _dlogits(logprobs, targets[at], hidden.dtype)
                d_hidden[at] = product(dlogits, cast)
        ctx.rows = rows
        kept = dlogits if ctx.needs_input_grad[1] and len(hidden) <= rows else None
        ctx.save_for_backward(hidden, weight, targets, d_hidden, kept)
        return nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """From u [N] the gradients of `hidden` and, if trained, of `weight`."""
        hidden, weight, targets, d_hidden, kept = ctx.saved_tensors
        upstream, d_weight = upstream[:, None], None
        if ctx.needs_input_grad[1]:
            d_weight = _zero_gradient(weight)
            one_chunk = [(slice(None), kept)]
            for at, dlogits in _all_dlogits(hidden, weight.to(hidden.dtype), targets, ctx.rows) if kept is None else one_chunk:
                _add_product(d_weight, dlogits.T, (hidden[at] * upstream[at]).to(hidden.dtype))
            d_weight = d_weight.to(weight.dtype)
        return (d_hidden * upstream).to(hidden.dtype), d_weight, None, None, None


class LinearLoss(torch.autograd.Function):
    """The sum of the losses, each times its coefficient, which is u up to a common factor: the logits are computed once.

    The gradient of the head is allocated in the forward pass. The peak memory is the same, because the backward pass starts with the head.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, coefficients: Tensor, rows: int, needs_grad: bool
    ) -> tuple[Tensor, Tensor]:
        """The sum of all losses, each times its coefficient [N], and the losses, [N] float32, without gradient."""
        nll, d_hidden = _losses(hidden), torch.empty_like(hidden) if needs_grad else None
        d_weight = _zero_gradient(weight) if needs_grad and ctx.needs_input_grad[1] else None
        cast = weight.to(hidden.dtype)
        for at, logprobs in _chunks(hidden, cast, rows):
            nll[at] = _of_targets(logprobs, targets[at])
            if d_hidden is not None:
                dlogits, share = _dlogits(logprobs, targets[at], hidden.dtype), coefficients[at, None]
                d_hidden[at] = product(dlogits, cast) * share
                if d_weight is not None:
                    _add_product(d_weight, dlogits.T, (hidden[at] * share).to(hidden.dtype))
        ctx.gradients = d_hidden, None if d_weight is None else d_weight.to(weight.dtype)
        ctx.mark_non_differentiable(nll)
        return (nll * coefficients).sum(), nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """From u / coefficient, a scalar, the same gradients.

        Raises RuntimeError in a second call: the first one returns the gradients without a copy, which would be as large as the head.
        """
        if ctx.gradients is None:
            raise RuntimeError("The gradient of this loss was taken already. Compute the loss again.")
        (d_hidden, d_weight), ctx.gradients = ctx.gradients, None
        return d_hidden.mul_(scale), None if d_weight is None else d_weight.mul_(scale), None, None, None, None


def _losses(hidden: Tensor) -> Tensor:
    """[N] float32, uninitialised."""
    return torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)


def _zero_gradient(weight: Tensor) -> Tensor:
    """[V, D] float32 zeros: the initial gradient of the head."""
    return torch.zeros_like(weight, dtype=torch.float32)


def _chunks(hidden: Tensor, cast: Tensor, rows: int) -> Iterator[tuple[slice, Tensor]]:
    """The slice of each chunk of tokens and its log-probabilities [n, V], float32, in a buffer that the next chunk overwrites."""
    logprobs_nv = torch.empty(min(rows, len(hidden)), len(cast), dtype=torch.float32, device=hidden.device)
    for start in range(0, len(hidden), rows):
        at = slice(start, min(start + rows, len(hidden)))
        logits = product(hidden[at], cast.T).float()
        yield at, torch.log_softmax(logits, -1, out=logprobs_nv[: len(logits)])


def _all_dlogits(hidden: Tensor, cast: Tensor, targets: Tensor, rows: int) -> Iterator[tuple[slice, Tensor]]:
    """The slice of each chunk of tokens and its s [n, V]."""
    for at, logprobs in _chunks(hidden, cast, rows):
        yield at, _dlogits(logprobs, targets[at], hidden.dtype)


def _of_targets(logprobs: Tensor, targets: Tensor) -> Tensor:
    """[n] losses from [n, V] log-probabilities."""
    return -logprobs.gather(1, targets[:, None]).squeeze(1)


def _dlogits(logprobs: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    """s, [n, V]: the gradient of the losses by the logits, computed in place of the log-probabilities."""
    dlogits = logprobs.exp_()
    dlogits[torch.arange(len(dlogits), device=dlogits.device), targets] -= 1
    return dlogits.to(dtype)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, summed in the type of `total`."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
