"""What an engine is: where gradients are summed, measured and applied.

The contract that makes the trainer blind: after any number of `backward` calls the open gradient is
that of the SUM of the losses over ranks and micro-batches. Losses are therefore shares of the whole
step (their coefficients divide by global counts), and no engine averages anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedModel

from percasym.balance.base import Gramian
from percasym.engine.hidden_norms import HiddenNorms
from percasym.engine.span_gradients import Parts
from percasym.models.base import Batch
from percasym.types import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInfo:
    """What happened at one optimizer step."""

    grad_norm: float
    """Norm of the whole gradient before clipping."""
    lr: float


class Engine(Protocol):
    """One model, its optimizer and its ranks. Every rank makes the same calls in the same order."""

    rank: int
    num_ranks: int

    @property
    def model(self) -> PreTrainedModel:
        """The Hugging Face model; under ZeRO-3 its weights are there inside `whole` only."""
        ...

    def gathered_weights(self) -> AbstractContextManager[PreTrainedModel]:
        """While it lasts, the Hugging Face model with all its weights on every rank, for decoding and saving; no training inside."""
        ...

    def nll(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of every supervised token, [B, T]; zero elsewhere."""
        ...

    def loss(self, batch: Batch, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """sum_t coefficient_t nll_t for `backward`, and the [B, T] losses without gradient; cheaper than weighing `nll` afterwards."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss` to the open gradient."""
        ...

    def cache_vision(self) -> AbstractContextManager[None]:
        """For the first of two passes over the same pictures in the same order; a vision tower at rest looks at them then ..."""
        ...

    def reuse_vision(self) -> AbstractContextManager[None]:
        """... and not again in the second."""
        ...

    def keep_gradient(self, span: Span) -> None:
        """Set the open gradient aside as that of `span` and open an empty one."""
        ...

    def gramian(self) -> Gramian:
        """Inner products of the two stashed gradients over all ranks."""
        ...

    def hidden_norms(self) -> HiddenNorms:
        """From now on, what every `backward` says of the last hidden state."""
        ...

    def combine(self, weights: Mapping[Span, float]) -> None:
        """The open gradient becomes the weighted sum of the stashed ones, which are dropped."""
        ...

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Element-wise sum over ranks."""
        ...

    def step(self, lr: float) -> StepInfo:
        """Clip, update the parameters, and empty the open gradient; one that is not finite changes nothing and ends the training."""
        ...

    def save(self, directory: Path) -> None:
        """Write the weights as a Hugging Face directory `model/`, and beside it optimizer and random state for `load`."""
        ...

    def load(self, directory: Path) -> None:
        """Restore what `save` wrote, on as many ranks."""
        ...


class Updater(Protocol):
    """What an engine does after the backward passes: where the open gradient lies, and how it is applied."""

    split: bool
    """Whether each rank holds a part of its own (ZeRO 1 to 3), or all hold the same."""

    def gradient(self) -> Parts:
        """This rank's part of the open gradient, summed over ranks; the next `apply` reads these tensors, as changed in place."""
        ...

    def take(self) -> Parts:
        """The same for the caller to keep; an empty gradient is open afterwards."""
        ...

    def put(self, parts: Parts) -> None:
        """Open a gradient that is summed already; `parts` are as `take` gave them."""
        ...

    def apply(self, lr: float) -> None:
        """Update the weights by the open gradient, as it is, and open an empty one."""
        ...

    def refresh(self) -> None:
        """The model's weights were changed from outside."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state of this rank's part."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        ...
