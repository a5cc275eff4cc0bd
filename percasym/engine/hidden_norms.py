"""How steeply each token's loss falls with the last hidden state, caught from an ordinary backward pass.

The gradient at the last hidden state exists for a moment in every backward pass; two hooks read it, and nothing is computed
twice. Dividing by what flowed into the token's loss leaves d nll_t / d h_(t-1) itself, whatever weights, counts or ranks
multiplied the loss.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from percasym.objectives.coefficients import span_sums
from percasym.types import Span


class HiddenNorms:
    """Squared norms of d nll_t / d h_(t-1), summed over the tokens of each span.

    A token that no loss reached (its weight was zero) counts as zero. Shapes: B rows, T tokens, D hidden size.
    """

    def __init__(self, trunk: nn.Module) -> None:
        """Follow the forward passes of `trunk`, whose output has a `last_hidden_state` [B, T, D]."""
        self._hidden: Tensor | None = None
        self._sums = torch.zeros(len(Span), dtype=torch.float64)
        trunk.register_forward_hook(self._remember)

    def follow(self, loss: Tensor, coefficients: Tensor, labels: Tensor) -> None:
        """Record the gradients at the last hidden states in the backward pass of `loss`.

        `loss` is the sum of the tokens' losses of the last forward pass, times `coefficients` [B, T].

        `labels` [B, T] name the spans.
        """
        hidden, self._hidden = self._hidden, None
        assert hidden is not None, "a loss is followed after the forward pass that it came from"
        arrived: list[Tensor] = []

        def at_hidden(gradient: Tensor) -> None:
            upstream = (arrived.pop() * coefficients)[:, 1:]  # The loss of token t hangs on h_(t-1).
            labelled = labels[:, 1:].to(gradient.device)
            norms = torch.linalg.vector_norm(gradient[:, :-1], dim=-1, dtype=torch.float32)
            hidden_norms = torch.where(upstream == 0, 0.0, norms / upstream)
            self._sums = self._sums.to(gradient.device) + span_sums(hidden_norms.double().square(), labelled)

        loss.register_hook(arrived.append)
        hidden.register_hook(at_hidden)

    def take(self) -> Tensor:
        """[2] float64: the sums of perception and reasoning since they were last taken, on this rank."""
        sums, self._sums = self._sums, torch.zeros_like(self._sums)
        return sums

    def _remember(self, trunk: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        if output.last_hidden_state.requires_grad:  # Not while answering questions.
            self._hidden = output.last_hidden_state
