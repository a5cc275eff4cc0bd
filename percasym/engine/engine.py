"""The engine, independent of the library below it: an implementation of `percasym.engine.base.Engine`.

A library (plain PyTorch, DeepSpeed) provides a `Backend`: forward, backward, and how gradients are stored and applied. Sums over ranks,
span gradients, clipping and checkpoints are implemented here for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from percasym.balance.base import Gramian
from percasym.config.paradigm import Training
from percasym.engine import checkpoint
from percasym.engine.base import Gather, StepInfo, Updater
from percasym.engine.hidden_norms import HiddenNorms
from percasym.engine.inner_products import Parts, squared_norm
from percasym.engine.loading import on_first_rank, whole_on_host
from percasym.engine.precision import inference
from percasym.engine.ranks import Ranks
from percasym.engine.reference import adapters_off, reference_nll
from percasym.engine.span_gradients import SpanGradients
from percasym.engine.vision_cache import Share, VisionCache
from percasym.models.base import Batch
from percasym.objectives.token_nll import TokenNll, supervised
from percasym.types import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What a library provides for an engine."""

    module: TokenNll
    forward: Callable[..., Any]
    """The forward of `module`, possibly wrapped by the library."""
    backward: Callable[[Tensor], object]
    """Adds to the open gradient, which `updater` sums over ranks."""
    updater: Updater
    gathered_weights: Callable[[], AbstractContextManager[object]]
    """Context in which every rank can read all weights."""
    assign: Callable[[nn.Parameter, Tensor | None], object]
    """Gives a parameter, on every rank, the float32 value that rank 0 passes; the others pass None."""
    collect: Callable[[nn.Parameter], Tensor] | None = None
    """A parameter in full and in float32, on every rank, for saving; None where the model itself has that."""
    gather: Gather | None = None
    """Context in which one parameter is complete on every rank; None where all of them always are."""
    traced: bool = False
    """Whether every pass must run the same modules (ZeRO-3 prefetches weights in the order of the previous pass)."""


class SpanEngine:
    """One model and its optimizer on some ranks."""

    def __init__(self, backend: Backend, *, paradigm: Training, device: torch.device, ranks: Ranks) -> None:
        """`paradigm` gives the norm at which the gradient is clipped; batches are moved to `device`."""
        self.rank, self.num_ranks = ranks.rank, ranks.num_ranks
        self._backend, self._updater, self._module = backend, backend.updater, backend.module
        self._ranks, self._device = ranks, device
        self._max_norm = paradigm.max_grad_norm or math.inf
        self._span_gradients = SpanGradients()
        self._vision_cache = None if backend.traced else VisionCache.of(self.model)
        self._hidden_norms: HiddenNorms | None = None

    @property
    def model(self) -> PreTrainedModel:
        """The Hugging Face model; under ZeRO-3 its weights are complete inside `gathered_weights` only."""
        return self._module.model

    @contextmanager
    def gathered_weights(self) -> Iterator[PreTrainedModel]:
        """Within the context, the Hugging Face model with all its weights on every rank, for decoding, not for training."""
        with self._backend.gathered_weights(), inference(self.model, self._device):
            yield self.model

    @contextmanager
    def partitioned_weights(self) -> Iterator[tuple[PreTrainedModel, Gather | None]]:
        """As `gathered_weights` for readers of one parameter at a time: the model as it is partitioned, and how to complete a parameter."""
        with inference(self.model, self._device):
            yield self.model, self._backend.gather

    def whole_weights(self, dtype: torch.dtype = torch.float32) -> AbstractContextManager[PreTrainedModel]:
        """Within the context, on rank 0 the model with all its weights, for saving.

        Under ZeRO-3 they are collected one by one into host memory, in `dtype`; else they are the model's own, in float32.
        """
        if self._backend.collect is None:
            return nullcontext(self.model)
        return whole_on_host(self.model, self._backend.collect, first=self.rank == 0, dtype=dtype)

    def nll(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of every supervised token, [B, T]; zero elsewhere."""
        return self._forward(batch)

    @torch.no_grad()
    def nll_without_adapters(self, batch: Batch) -> Tensor:
        """As `nll`, without gradient, of the model under the adapters."""
        with adapters_off(self.model):
            return reference_nll(self._backend.forward, self._device, batch)

    def loss(self, batch: Batch, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        """sum_t coefficient_t nll_t for `backward`, and the [B, T] losses without gradient; cheaper than weighting `nll` afterwards."""
        coefficients = coefficients.to(self._device)
        loss, nll = self._forward(batch, coefficients=coefficients)
        if self._hidden_norms is not None:
            self._hidden_norms.attach(loss, coefficients, batch.labels)
        return loss, nll

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss` to the open gradient."""
        assert len(self._span_gradients) < len(Span), "two gradients are kept: combine them before another backward pass"
        self._backend.backward(loss)

    def cache_vision(self) -> AbstractContextManager[None]:
        """Context of the first of two passes over the same pictures in the same order: caches the features of a frozen vision tower."""
        return self._vision_cache.cache_vision() if self._vision_cache else nullcontext()

    def reuse_vision(self) -> AbstractContextManager[None]:
        """Context of the second pass: reuses the cached features."""
        return self._vision_cache.reuse_vision() if self._vision_cache else nullcontext()

    @contextmanager
    def share_vision(self) -> Iterator[Share]:
        """Within the context, forwards of pictures with keys: the features of a frozen vision tower are computed once for each key."""
        if self._vision_cache is None:
            yield lambda keys: nullcontext()
        else:
            with self._vision_cache.sharing() as share:
                yield share

    def keep_gradient(self, span: Span) -> None:
        """Keep the open gradient as that of `span` and open an empty one."""
        self._span_gradients.keep(span, self._updater.take(last=len(self._span_gradients) == 1))

    def kept_gradient(self, span: Span) -> Parts:
        """This rank's part of the kept gradient of `span`, in the order of the trainable parameters, or of ZeRO's groups of them."""
        return self._span_gradients.kept(span)

    def gramian(self) -> Gramian:
        """Inner products of the two kept gradients, over all ranks."""
        perception, reasoning, cross = self._over_parts(self._span_gradients.products()).tolist()
        return Gramian(perception=perception, reasoning=reasoning, cross=cross)

    def hidden_norms(self) -> HiddenNorms:
        """Start to measure the gradient norms at the last hidden state in every `backward`, and return the object that sums them."""
        self._hidden_norms = self._hidden_norms or HiddenNorms(self._module.model.model)
        return self._hidden_norms

    def combine(self, weights: Mapping[Span, float]) -> None:
        """Open the weighted sum of the kept gradients, which are dropped."""
        self._updater.put(self._span_gradients.combined(weights))

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Element-wise sum over ranks."""
        return self._ranks.all_reduce_sum(values)

    def step(self, lr: float) -> StepInfo:
        """Clip the open gradient, update the parameters, and open an empty gradient; no update is made if the gradient is not finite."""
        parts = [part for part in self._updater.gradient() if part is not None]
        norm = math.sqrt(self._over_parts(squared_norm(parts)))
        if not math.isfinite(norm):
            return StepInfo(grad_norm=norm, lr=lr)
        if norm > self._max_norm:
            for part in parts:
                part.mul_(self._max_norm / norm)
        self._updater.apply(lr)
        return StepInfo(grad_norm=norm, lr=lr)

    def save(self, directory: Path) -> None:
        """Write the weights as a Hugging Face directory `model/`, and beside it the optimizer and random states for `load`."""
        self._ranks.barrier()  # Rank 0 has created the directory.
        with self.whole_weights() as model:
            if self.rank == 0:
                checkpoint.save_weights(directory, model)
        checkpoint.save_state(directory, self._ranks, self._updater)
        self._ranks.barrier()  # Rank 0 marks the checkpoint complete after all ranks have written.

    def load(self, directory: Path) -> None:
        """Restore what `save` wrote, on any number of ranks: bit for bit on the same number, else but for the order of sums."""
        state = checkpoint.read_state(directory, self._ranks, self._updater)
        values = on_first_rank(self._ranks, lambda: checkpoint.read_weights(directory, self.model))
        parameters = dict(self.model.named_parameters())
        for name in self._ranks.broadcast(lambda: list(values or ())):
            self._backend.assign(parameters[name], values.pop(name) if values else None)
        self._updater.refresh()
        checkpoint.load_state(state, self._updater)

    def _forward(self, batch: Batch, **arguments: Tensor) -> Any:
        if not self.model.training:  # An evaluation switches the model to eval mode.
            self._module.train()
        at = supervised(batch.labels).to(self._device)
        return self._backend.forward(at, **arguments, **batch.to(self._device).arguments)

    def _over_parts(self, values: Tensor) -> Tensor:
        """Sum values over ranks where each rank holds a part of the gradient; without ZeRO they are complete already."""
        return self._ranks.all_reduce_sum(values) if self._updater.split else values
