"""Negative log-likelihood of the supervised tokens, without the logits of a whole sequence in memory.

Unlike the loss of a causal language model in transformers, the head is applied only to positions whose next token is supervised, one chunk
at a time, so the memory of the loss is that of one chunk. If the coefficient of each token is known beforehand, the gradient of a chunk is
computed in the forward pass; if it depends on the losses (as in a policy ratio), the chunk is recomputed in the backward pass.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from percasym.objectives.linear_head import LinearLoss, LinearNll
from percasym.objectives.onednn import OneDnnLinear
from percasym.types import UNSUPERVISED

CHUNK_BYTES = {"cpu": 2**27, "cuda": 2**29}
"""float32 logits in memory at once (our choice): of a vocabulary of 151,936, those of 220 tokens, and of 883 on a GPU.

There the products of 220 tokens are too small, and each chunk reads and writes the gradient of the whole head.
"""


def supervised(labels: Tensor) -> Tensor:
    """Flat positions, [N] in 0..B*T-1, of the supervised tokens of [B, T] labels, in reading order.

    Call it on the CPU copy of a batch: the number of positions is a shape, and reading it from a GPU would synchronise.

    >>> supervised(torch.tensor([[-1, 0, 1], [-1, 1, -1]])).tolist()
    [1, 2, 4]

    Raises ValueError when the first token of a row is supervised, because nothing predicts it.
    """
    if (labels[:, 0] != UNSUPERVISED).any():
        raise ValueError("The first token of a row is supervised, but no token stands before it. Put a prompt before the response.")
    return (labels != UNSUPERVISED).flatten().nonzero().flatten()


class TokenNll(nn.Module):
    """A Hugging Face causal model that returns the loss of each token in place of logits.

    An engine wraps this module, so its hooks treat trunk and head as ordinary submodules.
    For a LoRA model, pass `get_base_model()`, whose layers contain the adapters.
    """

    def __init__(
        self, model: nn.Module, *, dtype: torch.dtype | None = torch.float32, temperature: float = 1.0, chunk_bytes: int | None = None
    ) -> None:
        """`dtype` is the compute type of trunk and head (autocast; weights are not cast), None that of the caller's autocast; losses are
        float32.

        Logits are divided by `temperature`, as in sampling, so the loss is that of the sampled distribution. `chunk_bytes` are those of the
        logits in memory at once; None takes those of CHUNK_BYTES.
        """
        super().__init__()
        self.model: Any = model
        self.dtype = dtype
        self.temperature = temperature
        self.chunk_bytes = chunk_bytes

    def forward(self, at: Tensor, coefficients: Tensor | None = None, **arguments: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """[B, T] float32: NLL at the flat positions `at` [N], zero elsewhere.

        With `coefficients` [B, T] float32, returns instead the scalar sum_t coefficient_t NLL_t, and the NLL without gradient.
        `arguments` are those of the trunk, `input_ids` [B, T] among them.
        """
        ids = arguments["input_ids"]
        with self._precision(ids.device):
            hidden = self.model.model(**arguments, use_cache=False).last_hidden_state  # [B, T, D]
        hidden, targets = hidden.flatten(0, 1)[at - 1], ids.flatten()[at]  # [N, D], [N]
        if coefficients is None:
            return _scattered(self._nll(hidden, targets), at, ids)
        loss, nll = self._weighted(hidden, targets, coefficients.flatten()[at])
        return loss, _scattered(nll, at, ids)

    def _nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """[N] losses of `targets` [N] predicted from `hidden` [N, D]."""
        if self._linear():
            return LinearNll.apply(*self._head_factors(hidden), targets, self._rows(hidden), torch.is_grad_enabled())
        rows = self._rows(hidden)
        parts = zip(hidden.split(rows), targets.split(rows), strict=True)
        if hidden.shape[0] <= rows:
            return self._head(hidden, targets)
        # Non-reentrant, so that each weight receives one gradient per backward, as ZeRO requires; the head has no randomness.
        return torch.cat([checkpoint(self._head, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])

    def _weighted(self, hidden: Tensor, targets: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of the losses, each times its coefficient [N], and the losses [N] without gradient."""
        if self._linear():
            return LinearLoss.apply(*self._head_factors(hidden), targets, coefficients, self._rows(hidden), torch.is_grad_enabled())
        nll = self._nll(hidden, targets)
        return (nll * coefficients).sum(), nll.detach()

    def _linear(self) -> bool:
        """Whether the head is a plain matrix, without adapters and bias."""
        return type(self.model.lm_head) in (nn.Linear, OneDnnLinear) and self.model.lm_head.bias is None

    def _head_factors(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """The two factors of the logits of a plain head; dividing `hidden` by the temperature divides the logits."""
        return (hidden if self.dtype is None else hidden.to(self.dtype)) / self.temperature, self.model.lm_head.weight

    def _rows(self, hidden: Tensor) -> int:
        """Tokens in one chunk, on the device of `hidden`."""
        chunk_bytes = self.chunk_bytes or CHUNK_BYTES["cuda" if hidden.is_cuda else "cpu"]
        return max(1, chunk_bytes // (4 * self.model.config.get_text_config().vocab_size))

    def _head(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """[n] losses of one chunk for any head module (with adapters or a bias); autograd recomputes the chunk."""
        with self._precision(hidden.device):
            logits = self.model.lm_head(hidden)
        return cross_entropy(logits.float() / self.temperature, targets, reduction="none")

    def _precision(self, device: torch.device) -> AbstractContextManager[Any]:
        """Autocast without its cache, which would keep a rounded copy of every weight to the end of the forward; each is used once."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(device.type, dtype=self.dtype, enabled=self.dtype != torch.float32, cache_enabled=False)


def _scattered(nll: Tensor, at: Tensor, ids: Tensor) -> Tensor:
    """[B, T]: `nll` [N] at the flat positions `at`, zero elsewhere."""
    return nll.new_zeros(ids.numel()).index_copy(0, at, nll).view_as(ids)
