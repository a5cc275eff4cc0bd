"""The reference engine: plain PyTorch. On many ranks, gradients are all-reduced once before an update or a measurement.

Every other engine must give the same losses and parameters as this one on one rank (tests/parity).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from transformers import PreTrainedModel

from percasym.config.paradigm import Training
from percasym.config.settings import TorchSettings
from percasym.engine import partition
from percasym.engine.engine import Backend, SpanEngine
from percasym.engine.inner_products import Parts
from percasym.engine.loading import assign_whole, handed_over
from percasym.engine.partition import Layout
from percasym.engine.precision import compute_dtype, lowered, with_factors
from percasym.engine.ranks import SINGLE_RANK, Ranks
from percasym.objectives.token_nll import TokenNll


def torch_engine(
    model: PreTrainedModel,
    *,
    settings: TorchSettings,
    paradigm: Training,
    device: torch.device,
    ranks: Ranks = SINGLE_RANK,
    temperature: float = 1.0,
    vision: Sequence[str] = (),
) -> SpanEngine:
    """Move `model` to `device` and create its optimizer; `paradigm` gives learning rates, betas, weight decay and clipping.

    `vision` are the names of the parameters that `paradigm.lr_vision` is for.

    Losses are those of the model's distribution at `temperature`. All ranks get the weights of rank 0; the model of another may lie on the
    meta device.
    """
    dtype = compute_dtype(settings.precision, device)
    handed_over(with_factors(lowered(model, dtype), settings, device), device, ranks).train()
    module = TokenNll(model, dtype=dtype, temperature=temperature)
    updater = WholeUpdater(module, adamw(module, paradigm, vision), ranks)
    backend = Backend(
        module=module,
        forward=module,
        backward=Tensor.backward,
        updater=updater,
        gathered_weights=nullcontext,
        assign=partial(assign_whole, ranks),
    )
    return SpanEngine(backend, paradigm=paradigm, device=device, ranks=ranks)


class WholeUpdater:
    """Every rank holds all gradients, in `parameter.grad`, and makes the same update; a kept gradient is not copied."""

    split = False

    def __init__(self, module: nn.Module, optimizer: Optimizer, ranks: Ranks) -> None:
        self._trained: Sequence[nn.Parameter] = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._module, self._optimizer, self._ranks = module, optimizer, ranks
        self._summed = False

    def gradient(self) -> Parts:
        """The open gradient, summed over ranks."""
        if not self._summed:
            self._ranks.all_reduce_in_place(self._reached())
            self._summed = True
        return [parameter.grad for parameter in self._trained]

    def take(self, *, last: bool = False) -> Parts:
        """Return the open gradient for the caller to keep, and open an empty one; none is copied, whether or not it is the `last`."""
        parts = self.gradient()
        self._clear()
        return parts

    def put(self, parts: Parts) -> None:
        """Open a gradient that is already summed over ranks."""
        assert all(parameter.grad is None for parameter in self._trained), "a gradient is still open"
        for parameter, part in zip(self._trained, parts, strict=True):
            parameter.grad = part
        self._summed = True

    def apply(self, lr: float) -> None:
        """One optimizer step with this learning rate."""
        set_lr(self._optimizer, lr)
        self._optimizer.step()
        self._clear()

    def refresh(self) -> None:
        """No-op: there is no other copy of the weights."""

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state, the same on every rank."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the optimizer's state."""
        self._optimizer.load_state_dict(state)

    def layout(self) -> Layout:
        """One tensor for each trained parameter."""
        return partition.whole(self._module, self._optimizer)

    def tensors(self) -> Sequence[Tensor]:
        """The trained parameters, in the optimizer's order."""
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    def _reached(self) -> list[Tensor]:
        """The gradients of all parameters that have one on any rank; zeros where this rank has none."""
        reached = self._ranks.all_reduce_sum(torch.tensor([parameter.grad is not None for parameter in self._trained], dtype=torch.int32))
        chosen = [parameter for parameter, count in zip(self._trained, reached.tolist(), strict=True) if count]
        for parameter in chosen:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in chosen if parameter.grad is not None]

    def _clear(self) -> None:
        for parameter in self._trained:
            parameter.grad = None
        self._summed = False


def adamw(module: nn.Module, settings: Training, vision: Sequence[str] = ()) -> AdamW:
    """AdamW over the trainable parameters, with weight decay on matrices only, not on gains and biases (the usual choice).

    With `settings.lr_vision`, the parameters of the model named in `vision` have groups of their own with that rate.
    """
    scale = 1.0 if settings.lr_vision is None else settings.lr_vision / settings.lr
    apart = {"model." + name for name in vision} | {*vision} if settings.lr_vision is not None else set[str]()
    trained = [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for name, parameter in trained if (parameter.ndim > 1) == decays and (name in apart) == own],
            "weight_decay": settings.weight_decay if decays else 0.0,
            "lr_scale": scale if own else 1.0,
        }
        for own in (False, True)
        for decays in (True, False)
    ]
    return AdamW([group for group in groups if group["params"]], lr=settings.lr, betas=settings.betas, fused=True)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of the schedule; the vision tower's follows in its proportion."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)  # Checkpoints of before have no scales.
