"""Gradient norms of the token losses at the last hidden state, measured in an ordinary backward pass.

The gradient at the last hidden state exists only during the backward pass. Two hooks read it there, so nothing is computed twice. Dividing
by the upstream gradient of the token's loss gives d nll_t / d h_(t-1) itself, independent of weights, counts and ranks in the loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from percasym.objectives.coefficients import span_sums
from percasym.types import Span


class HiddenNorms:
    """Squared norms of d nll_t / d h_(t-1), summed over the tokens of each span.

    A token whose loss has weight zero counts as zero. Shapes: B rows, T tokens, D hidden size.
    """

    def __init__(self, trunk: nn.Module) -> None:
        """Hook the forward of `trunk`, whose output has a `last_hidden_state` [B, T, D]."""
        self._hidden: Tensor | None = None
        self._sums = torch.zeros(len(Span), dtype=torch.float64)
        trunk.register_forward_hook(self._save_hidden)

    def attach(self, loss: Tensor, coefficients: Tensor, labels: Tensor) -> None:
        """Measure the gradients at the last hidden states in the backward pass of `loss`.

        `loss` is the sum of the token losses of the last forward pass, times `coefficients` [B, T]. `labels` [B, T] are the spans.
        """
        hidden, self._hidden = self._hidden, None
        assert hidden is not None, "attach follows the forward pass of the loss"
        of_loss: list[Tensor] = []

        def at_hidden(gradient: Tensor) -> None:
            upstream = (of_loss.pop() * coefficients)[:, 1:]  # The loss of token t depends on h_(t-1).
            labelled = labels[:, 1:].to(gradient.device)
            norms = torch.linalg.vector_norm(gradient[:, :-1], dim=-1, dtype=torch.float32)
            token_norms = torch.where(upstream == 0, 0.0, norms / upstream)
            self._sums = self._sums.to(gradient.device) + span_sums(token_norms.double().square(), labelled)

        loss.register_hook(of_loss.append)
        hidden.register_hook(at_hidden)

    def take(self) -> Tensor:
        """[2] float64: the sums of perception and reasoning on this rank since the last call."""
        sums, self._sums = self._sums, torch.zeros_like(self._sums)
        return sums

    def _save_hidden(self, trunk: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        if output.last_hidden_state.requires_grad:  # Not while decoding.
            self._hidden = output.last_hidden_state
