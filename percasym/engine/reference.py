"""The frozen reference of RL's KL term: the model that RL starts from, and its losses on a batch.

With adapters it is the model in training without them, so nothing is held twice. Without, it is a second copy: each rank keeps all of
it, or under ZeRO-3 a part (`percasym.engine.deepspeed.sharded_reference`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from percasym.engine.loading import handed_over
from percasym.engine.precision import rounded_linear
from percasym.engine.ranks import Ranks
from percasym.models.base import Batch
from percasym.objectives.token_nll import TokenNll, supervised

Reference = Callable[[Batch], Tensor]
"""The losses of the reference, [B, T] of a batch, without gradient."""


def whole_reference(model: PreTrainedModel, *, dtype: torch.dtype, device: torch.device, ranks: Ranks, temperature: float) -> Reference:
    """A reference of which every rank has all weights; those of linear layers in the compute type, which changes no bit of a loss."""
    frozen = rounded_linear(model.requires_grad_(False), dtype)
    module = TokenNll(handed_over(frozen, device, ranks), dtype=dtype, temperature=temperature).eval()
    return partial(reference_nll, module, device)


@torch.no_grad()
def reference_nll(forward: Callable[..., Any], device: torch.device, batch: Batch) -> Tensor:
    """[B, T] losses of a batch under a `TokenNll`, possibly wrapped by a library."""
    return forward(supervised(batch.labels).to(device), **batch.to(device).arguments)


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Within the context the model computes without its adapters.

    Unlike `model.disable_adapters()` this leaves `requires_grad` of the adapters alone, which their optimizer relies on.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    assert layers, "the model has no adapters"
    try:
        for layer in layers:
            layer._disable_adapters = True
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False
