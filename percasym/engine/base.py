"""The interface of an engine: the model, its optimizer, and the gradients of a step.

After any number of `backward` calls, the open gradient (the one accumulated so far) is that of the SUM of the losses over ranks and
micro-batches. No engine averages: the coefficients of a loss divide by token counts of the whole step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from percasym.balance.base import Gramian
from percasym.engine.hidden_norms import HiddenNorms
from percasym.engine.inner_products import Parts
from percasym.engine.partition import Layout
from percasym.engine.vision_cache import Share
from percasym.models.base import Batch
from percasym.types import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInfo:
    """The result of one optimizer step."""

    grad_norm: float
    """Norm of the whole gradient before clipping."""
    lr: float


Gather = Callable[[Tensor], AbstractContextManager[object]]
"""A context in which a parameter that ZeRO-3 has partitioned is complete on every rank."""


class Engine(Protocol):
    """One model, its optimizer and its ranks. Every rank makes the same calls in the same order."""

    rank: int
    num_ranks: int

    @property
    def model(self) -> PreTrainedModel:
        """The Hugging Face model; under ZeRO-3 its weights are complete inside `gathered_weights` only."""
        ...

    def gathered_weights(self) -> AbstractContextManager[PreTrainedModel]:
        """Within the context, the Hugging Face model with all its weights on every rank, for decoding, not for training."""
        ...

    def whole_weights(self, dtype: torch.dtype = torch.float32) -> AbstractContextManager[PreTrainedModel]:
        """Within the context, on rank 0 the model with all its weights, for saving: collected in `dtype`, or as a rank holds them whole."""
        ...

    def partitioned_weights(self) -> AbstractContextManager[tuple[PreTrainedModel, Gather | None]]:
        """As `gathered_weights` for readers of one parameter at a time: the model as it is partitioned, and how to complete a parameter.

        None where all parameters are complete.
        """
        ...

    def nll(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of every supervised token, [B, T]; zero elsewhere."""
        ...

    def nll_without_adapters(self, batch: Batch) -> Tensor:
        """As `nll`, without gradient, of the model under the adapters."""
        ...

    def loss(self, batch: Batch, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """sum_t coefficient_t nll_t for `backward`, and the [B, T] losses without gradient; cheaper than weighting `nll` afterwards."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss` to the open gradient."""
        ...

    def cache_vision(self) -> AbstractContextManager[None]:
        """Context of the first of two passes over the same pictures in the same order: caches the features of a frozen vision tower."""
        ...

    def reuse_vision(self) -> AbstractContextManager[None]:
        """Context of the second pass: reuses the cached features."""
        ...

    def share_vision(self) -> AbstractContextManager[Share]:
        """Within the context, forwards of pictures with keys: the features of a frozen vision tower are computed once for each key."""
        ...

    def keep_gradient(self, span: Span) -> None:
        """Keep the open gradient as that of `span` and open an empty one."""
        ...

    def gramian(self) -> Gramian:
        """Inner products of the two kept gradients, over all ranks."""
        ...

    def hidden_norms(self) -> HiddenNorms:
        """Start to measure the gradient norms at the last hidden state in every `backward`, and return the object that sums them."""
        ...

    def combine(self, weights: Mapping[Span, float]) -> None:
        """Open the weighted sum of the kept gradients, which are dropped."""
        ...

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Element-wise sum over ranks."""
        ...

    def step(self, lr: float) -> StepInfo:
        """Clip the open gradient, update the parameters, and open an empty gradient; no update is made if the gradient is not finite."""
        ...

    def save(self, directory: Path) -> None:
        """Write the weights as a Hugging Face directory `model/`, and beside it the optimizer and random states for `load`."""
        ...

    def load(self, directory: Path) -> None:
        """Restore what `save` wrote, on any number of ranks."""
        ...


class Updater(Protocol):
    """The library-specific part of an engine after the backward passes: where the open gradient is stored, and how it is applied."""

    split: bool
    """Whether each rank holds a part of the gradient (ZeRO 1 to 3), or every rank all of it."""

    def gradient(self) -> Parts:
        """This rank's part of the open gradient, summed over ranks; the next `apply` reads these tensors, as changed in place."""
        ...

    def take(self, *, last: bool = False) -> Parts:
        """Return the open gradient for the caller to keep, and open an empty one; `last`: no backward pass comes before `put`."""
        ...

    def put(self, parts: Parts) -> None:
        """Open a gradient that is already summed over ranks; `parts` have the form of `take`."""
        ...

    def apply(self, lr: float) -> None:
        """Update the weights with the open gradient, and open an empty one."""
        ...

    def refresh(self) -> None:
        """Call after the model's weights were changed from outside."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state for this rank's part."""
        ...

    def layout(self) -> Layout:
        """Which part of which parameter each tensor of that state holds, for ranks of another number."""
        ...

    def tensors(self) -> Sequence[Tensor]:
        """What the optimizer updates, one for each tensor of that layout: its state has their shapes and lies on their devices."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the optimizer's state."""
        ...
