"""Negative log-likelihood of the supervised tokens, without ever holding the logits of a sequence.

Unlike a causal language model's own loss, the head sees only the positions whose next token is
supervised, a chunk at a time; when there is more than one chunk its logits are computed again in the
backward pass, so the memory of the loss is that of one chunk, whatever the sequence and the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from percasym.types import UNSUPERVISED

CHUNK_BYTES = 2**27
"""float32 logits held at once (our choice: 128 MiB, 220 tokens of a vocabulary of 151,936)."""


def supervised(labels: Tensor) -> Tensor:
    """Flat positions, [N] in 0..B*T-1, of the supervised tokens of [B, T] labels, in reading order.

    Called on the CPU copy of a batch: the number of positions is a shape, and reading it from an
    accelerator would stall it.

    >>> supervised(torch.tensor([[-1, 0, 1], [-1, 1, -1]])).tolist()
    [1, 2, 4]

    Raises ValueError when the first token of a row is supervised, because nothing predicts it.
    """
    if (labels[:, 0] != UNSUPERVISED).any():
        raise ValueError("The first token of a row is supervised, but no token stands before it. Put a prompt before the response.")
    return (labels != UNSUPERVISED).flatten().nonzero().flatten()


class TokenNll(nn.Module):
    """A Hugging Face causal model that returns the loss of each token in place of logits.

    Its own forward is what an engine wraps, so the engine's hooks see trunk and head as ordinary submodules.
    A LoRA model is wrapped through `get_base_model()`, whose layers carry the adapters.
    """

    def __init__(
        self, model: nn.Module, *, dtype: torch.dtype = torch.float32, temperature: float = 1.0, chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        """`dtype` is what trunk and head compute in (autocast; the weights stay as they are); losses are float32.

        Logits are divided by `temperature`, as a sampler does: the loss is then that of the distribution sampled from.
        """
        super().__init__()
        self.model: Any = model
        self.dtype = dtype
        self.temperature = temperature
        self.chunk_bytes = chunk_bytes

    def forward(self, at: Tensor, **arguments: Tensor) -> Tensor:
        """[B, T] float32: NLL at the flat positions `at` [N], zero elsewhere.

        `arguments` are those of the trunk, `input_ids` [B, T] among them.
        """
        ids = arguments["input_ids"]
        with self._precision(ids.device):
            hidden = self.model.model(**arguments, use_cache=False).last_hidden_state  # [B, T, D]
        nll = self._nll(hidden.flatten(0, 1)[at - 1], ids.flatten()[at])  # [N]
        return nll.new_zeros(ids.numel()).index_copy(0, at, nll).view_as(ids)

    def _nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """[N] losses of `targets` [N] predicted from `hidden` [N, D]."""
        head = self.model.lm_head
        rows = max(1, self.chunk_bytes // (4 * self.model.config.get_text_config().vocab_size))
        if type(head) is nn.Linear and head.bias is None:
            return _LinearNll.apply(hidden.to(self.dtype) / self.temperature, head.weight, targets, rows)  # As dividing the logits.
        parts = zip(hidden.split(rows), targets.split(rows), strict=True)
        if hidden.shape[0] <= rows:
            return self._head(hidden, targets)
        # Non-reentrant, so that one backward reaches each weight once (ZeRO counts on it); nothing in the head is random.
        return torch.cat([checkpoint(self._head, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])

    def _head(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The same through whatever module the head is (adapters, a bias): each chunk is recomputed as a whole."""
        with self._precision(hidden.device):
            logits = self.model.lm_head(hidden)
        return cross_entropy(logits.float() / self.temperature, targets, reduction="none")

    def _precision(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)


class _LinearNll(torch.autograd.Function):
    """Cross-entropy of a linear head, fused with it.

    Unlike the general path, the chunks share their buffers, normalisers are computed once, and the gradient of the weight
    grows in place (one copy of it a chunk would be as large as the logits of D tokens). Suffixes: N tokens, V vocabulary.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, rows: int) -> Tensor:
        """[N] float32 losses from `hidden` [N, D] in the computing type and `weight` [V, D] in its own."""
        num, ctx.rows = len(hidden), rows
        logits_nv, logprobs_nv = _buffer(hidden, weight, rows), _buffer(hidden, weight, rows)
        nll, normaliser = logits_nv.new_empty((num, 1)), logits_nv.new_empty((num, 1))
        cast = weight.to(hidden.dtype)
        for at in _chunks(num, rows):
            target = targets[at, None]
            logits = _multiply(hidden[at], cast.T, logits_nv)
            logprobs = torch.log_softmax(logits, -1, out=logprobs_nv[: len(logits)])
            nll[at] = -logprobs.gather(1, target)
            normaliser[at] = logits.gather(1, target) + nll[at]
        kept = logprobs_nv if num <= rows else None  # One chunk: kept, not computed again.
        ctx.save_for_backward(hidden, weight, targets, normaliser, kept)
        return nll.squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """With s = softmax(logits) - onehot(target): d hidden = upstream * (s W), d weight = s^T (upstream * hidden)."""
        hidden, weight, targets, normaliser, kept = ctx.saved_tensors
        cast, upstream = weight.to(hidden.dtype), upstream[:, None]
        d_hidden = torch.empty_like(hidden)
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        buffer_nv = _buffer(hidden, weight, ctx.rows) if kept is None else kept
        for at in _chunks(len(hidden), ctx.rows):
            logprobs = _multiply(hidden[at], cast.T, buffer_nv).sub_(normaliser[at]) if kept is None else kept
            slope = logprobs.exp_()  # In place: a second backward over a kept chunk is refused by autograd, not wrong.
            slope[torch.arange(len(slope), device=slope.device), targets[at]] -= 1
            slope = slope.to(hidden.dtype)
            d_hidden[at] = (slope @ cast) * upstream[at]
            if d_weight is not None:
                _add_product(d_weight, slope.T, (hidden[at] * upstream[at]).to(hidden.dtype))
        return d_hidden, None if d_weight is None else d_weight.to(weight.dtype), None, None


def _buffer(hidden: Tensor, weight: Tensor, rows: int) -> Tensor:
    """Room for the float32 logits of one chunk."""
    return torch.empty((min(rows, len(hidden)), len(weight)), dtype=torch.float32, device=hidden.device)


def _chunks(num: int, rows: int) -> Iterator[slice]:
    return (slice(at, min(at + rows, num)) for at in range(0, num, rows))


def _multiply(left: Tensor, right: Tensor, buffer: Tensor) -> Tensor:
    """left @ right as float32, written into the first rows of `buffer`."""
    out = buffer[: len(left)]
    return torch.mm(left, right, out=out) if left.dtype == out.dtype else out.copy_(left @ right)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, summed in the type of `total`."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total.add_(left @ right)
