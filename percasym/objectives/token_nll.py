"""Negative log-likelihood of the supervised tokens, without ever holding the logits of a sequence.

Unlike a causal language model's own loss, the head sees only the positions whose next token is
supervised, a chunk at a time; when there is more than one chunk its logits are computed again in the
backward pass, so the memory of the loss is that of one chunk, whatever the sequence and the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
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

    def __init__(self, model: nn.Module, *, dtype: torch.dtype = torch.float32, chunk_bytes: int = CHUNK_BYTES) -> None:
        """`dtype` is what trunk and head compute in (autocast; the weights stay as they are); losses are float32."""
        super().__init__()
        self.model = model
        self.dtype = dtype
        self.chunk_bytes = chunk_bytes

    def forward(self, at: Tensor, **arguments: Tensor) -> Tensor:
        """[B, T] float32: NLL at the flat positions `at` [N], zero elsewhere.

        `arguments` are those of the trunk, `input_ids` [B, T] among them.
        """
        ids = arguments["input_ids"]
        with torch.autocast(ids.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            hidden = self.model.model(**arguments, use_cache=False).last_hidden_state  # [B, T, D]
            nll = self._chunked(hidden.flatten(0, 1)[at - 1], ids.flatten()[at])  # [N]
        return nll.new_zeros(ids.numel()).index_copy(0, at, nll).view_as(ids)

    def _chunked(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """[N] losses of `targets` [N] predicted from `hidden` [N, D]."""
        vocabulary = self.model.config.get_text_config().vocab_size
        num_chunks = max(1, -(-hidden.shape[0] * vocabulary * 4 // self.chunk_bytes))
        if num_chunks == 1:
            return self._head(hidden, targets)
        pairs = zip(hidden.tensor_split(num_chunks), targets.tensor_split(num_chunks), strict=True)
        # Non-reentrant, so that one backward reaches each weight once (ZeRO counts on it); nothing in the head is random.
        return torch.cat([checkpoint(self._head, *pair, use_reentrant=False, preserve_rng_state=False) for pair in pairs])

    def _head(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return _CrossEntropy.apply(self.model.lm_head(hidden), targets)


class _CrossEntropy(torch.autograd.Function):
    """Per-token cross-entropy whose gradient is written over its own log-probabilities (the stock one allocates a third array)."""

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor, targets: Tensor) -> Tensor:
        """[N] float32 losses of [N, V] logits."""
        logprobs = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
        ctx.save_for_backward(logprobs, targets)
        ctx.dtype = logits.dtype
        return -logprobs.gather(1, targets[:, None]).squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        """d loss / d logits = upstream * (softmax(logits) - onehot(target))."""
        logprobs, targets = ctx.saved_tensors
        gradient = logprobs.exp_()  # In place: a second backward over the same graph is refused by autograd, not wrong.
        gradient[torch.arange(len(targets), device=targets.device), targets] -= 1
        return gradient.mul_(upstream[:, None]).to(ctx.dtype), None
