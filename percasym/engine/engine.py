"""The engine, whatever lies below it; its contract is `percasym.engine.base.Engine`.

A library (plain PyTorch, DeepSpeed) brings a `Backend`: forward, backward and what it does with gradients.
All that is ours (sums over ranks, span gradients, clipping, checkpoints) is here, once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm
from transformers import PreTrainedModel

from percasym.balance.base import Gramian
from percasym.config.paradigm import Training
from percasym.engine import checkpoint
from percasym.engine.base import StepInfo, Updater
from percasym.engine.hidden_norms import HiddenNorms
from percasym.engine.precision import inference
from percasym.engine.ranks import Ranks
from percasym.engine.span_gradients import SpanGradients
from percasym.engine.vision_cache import VisionCache
from percasym.models.base import Batch
from percasym.objectives.token_nll import TokenNll, supervised
from percasym.types import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What a library brings to an engine."""

    module: TokenNll
    forward: Callable[..., Any]
    """The forward of `module`, as the library wraps it."""
    backward: Callable[[Tensor], object]
    """Adds to an open gradient that `updater` sums over ranks."""
    updater: Updater
    gathered_weights: Callable[[bool], AbstractContextManager[object]]
    """While it lasts, every rank has all weights: to use them, or (`True`) to change them, all ranks alike."""
    traced: bool = False
    """Every pass must go through the same modules (ZeRO-3 fetches their weights in the order of the pass before)."""


class SpanEngine:
    """One model and its optimizer on some ranks."""

    def __init__(self, backend: Backend, *, paradigm: Training, device: torch.device, ranks: Ranks) -> None:
        """`paradigm` gives the norm at which the gradient is clipped, `device` is where batches go."""
        self.rank, self.num_ranks = ranks.rank, ranks.num_ranks
        self._backend, self._updater, self._module = backend, backend.updater, backend.module
        self._ranks, self._device = ranks, device
        self._max_norm = paradigm.max_grad_norm or math.inf
        self._span_gradients = SpanGradients()
        self._vision_cache = None if backend.traced else VisionCache.of(self.model)
        self._hidden_norms: HiddenNorms | None = None

    @property
    def model(self) -> PreTrainedModel:
        """The Hugging Face model; under ZeRO-3 its weights are there inside `whole` only."""
        return self._module.model

    @contextmanager
    def gathered_weights(self) -> Iterator[PreTrainedModel]:
        """While it lasts, the Hugging Face model with all its weights on every rank, for decoding and saving; no training inside."""
        with self._backend.gathered_weights(False), inference(self.model, self._device):
            yield self.model

    def nll(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of every supervised token, [B, T]; zero elsewhere."""
        return self._forward(batch)

    def loss(self, batch: Batch, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """sum_t coefficient_t nll_t for `backward`, and the [B, T] losses without gradient; cheaper than weighing `nll` afterwards."""
        coefficients = coefficients.to(self._device)
        loss, nll = self._forward(batch, coefficients=coefficients)
        if self._hidden_norms is not None:
            self._hidden_norms.follow(loss, coefficients, batch.labels)
        return loss, nll

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss` to the open gradient."""
        self._backend.backward(loss)

    def cache_vision(self) -> AbstractContextManager[None]:
        """For the first of two passes over the same pictures in the same order; a vision tower at rest looks at them then ..."""
        return self._vision_cache.cache_vision() if self._vision_cache else nullcontext()

    def reuse_vision(self) -> AbstractContextManager[None]:
        """... and not again in the second."""
        return self._vision_cache.reuse_vision() if self._vision_cache else nullcontext()

    def keep_gradient(self, span: Span) -> None:
        """Set the open gradient aside as that of `span` and open an empty one."""
        self._span_gradients.keep(span, self._updater.take())

    def gramian(self) -> Gramian:
        """Inner products of the two stashed gradients over all ranks."""
        perception, reasoning, cross = self._over_parts(self._span_gradients.products()).tolist()
        return Gramian(perception=perception, reasoning=reasoning, cross=cross)

    def hidden_norms(self) -> HiddenNorms:
        """From now on, what every `backward` says of the last hidden state."""
        self._hidden_norms = self._hidden_norms or HiddenNorms(self._module.model.model)
        return self._hidden_norms

    def combine(self, weights: Mapping[Span, float]) -> None:
        """The open gradient becomes the weighted sum of the stashed ones, which are dropped."""
        self._updater.put(self._span_gradients.combined(weights))

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Element-wise sum over ranks."""
        return self._ranks.all_reduce_sum(values)

    def step(self, lr: float) -> StepInfo:
        """Clip, update the parameters, and empty the open gradient; one that is not finite changes nothing."""
        parts = [part for part in self._updater.gradient() if part is not None]
        norm = math.sqrt(self._over_parts(get_total_norm(parts).double().square()))
        if not math.isfinite(norm):
            return StepInfo(grad_norm=norm, lr=lr)
        if norm > self._max_norm:
            for part in parts:
                part.mul_(self._max_norm / norm)
        self._updater.apply(lr)
        return StepInfo(grad_norm=norm, lr=lr)

    def save(self, directory: Path) -> None:
        """Write the weights as a Hugging Face directory `model/`, and beside it optimizer and random state for `load`."""
        self._ranks.barrier()  # Rank 0 makes the directory ...
        with self.gathered_weights() as model:
            if self.rank == 0:
                checkpoint.save_weights(directory, model)
        checkpoint.save_state(directory, self._ranks, self._updater)
        self._ranks.barrier()  # ... and calls it a checkpoint when all are through.

    def load(self, directory: Path) -> None:
        """Restore what `save` wrote, on as many ranks."""
        state = checkpoint.read_state(directory, self._ranks, self._updater)
        with self._backend.gathered_weights(True):
            checkpoint.load_weights(directory, self.model)
        self._updater.refresh()
        checkpoint.load_state(state, self._updater)

    def _forward(self, batch: Batch, **further: Tensor) -> Any:
        if not self.model.training:  # An evaluation leaves it in inference mode.
            self._module.train()
        at = supervised(batch.labels).to(self._device)
        return self._backend.forward(at, **further, **batch.to(self._device).arguments)

    def _over_parts(self, values: Tensor) -> Tensor:
        """Sum what was computed from the parts that ranks hold; where all hold the whole, it is the sum already."""
        return self._ranks.all_reduce_sum(values) if self._updater.split else values
