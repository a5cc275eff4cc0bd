"""The reference engine: plain PyTorch, one device, nothing hidden.

Every other engine must give the same losses and parameters as this one (tests/parity).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from transformers import PreTrainedModel

from percasym.balance.base import Gramian
from percasym.engine import optimizer
from percasym.engine.base import StepInfo
from percasym.engine.precision import compute_dtype
from percasym.engine.stash import Stash
from percasym.models.base import Batch
from percasym.objectives.token_nll import TokenNll, supervised
from percasym.settings import Sft, TorchSettings
from percasym.types import Span


class TorchEngine:
    """One model, AdamW, one device; the contract is `percasym.engine.base.Engine`."""

    rank = 0
    num_ranks = 1

    def __init__(self, model: PreTrainedModel, *, settings: TorchSettings, paradigm: Sft, device: torch.device) -> None:
        """Move `model` to `device` and make its optimizer; `paradigm` gives learning rate, betas, decay and clipping."""
        self._device = device
        nn.Module.to(model, device).train()
        self._module = TokenNll(model, dtype=compute_dtype(settings.precision, device))
        self._optimizer = optimizer.adamw(self._module, paradigm)
        self._max_norm = paradigm.max_grad_norm or torch.inf
        self._trained = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
        self._stash = Stash(self._trained)

    @property
    def model(self) -> PreTrainedModel:
        """The Hugging Face model, for decoding and saving."""
        return self._module.model

    def nll(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of every supervised token, [B, T]; zero elsewhere."""
        if not self.model.training:  # An evaluation leaves it in inference mode.
            self._module.train()
        at = supervised(batch.labels).to(self._device)
        return self._module(at, **batch.to(self._device).arguments)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss` to the open gradient."""
        loss.backward()

    def stash(self, span: Span) -> None:
        """Set the open gradient aside as that of `span` and open an empty one."""
        self._stash.take(span)

    def gramian(self) -> Gramian:
        """Inner products of the two stashed gradients."""
        return self._stash.gramian()

    def combine(self, weights: Mapping[Span, float]) -> None:
        """The open gradient becomes the weighted sum of the stashed ones, which are dropped."""
        self._stash.combine(weights)

    def total(self, values: Tensor) -> Tensor:
        """`values` themselves: there is one rank."""
        return values

    def step(self, lr: float) -> StepInfo:
        """Clip, update the parameters, and empty the open gradient."""
        norm = get_total_norm([parameter.grad for parameter in self._trained if parameter.grad is not None])
        clip_grads_with_norm_(self._trained, self._max_norm, norm)
        optimizer.set_lr(self._optimizer, lr)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return StepInfo(grad_norm=float(norm), lr=lr)

    def save(self, directory: Path) -> None:
        """Write weights, optimizer and random state for `load`."""
        optimizer.save(directory, self._module.model, self._optimizer)

    def load(self, directory: Path) -> None:
        """Restore what `save` wrote."""
        optimizer.load(directory, self._module.model, self._optimizer)
