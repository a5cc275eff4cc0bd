"""The same engine on DeepSpeed: the only file that knows it.

Unlike DeepSpeed's own loop, which counts micro-batches to find the end of a step, the trainer owns the
step (unmanaged accumulation): gradients of any number of passes add up in `parameter.grad`, where they can be
set aside per span, until `step` reduces and applies them. Micro-batches are never averaged.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.utils import get_total_norm
from transformers import PreTrainedModel

from percasym.balance.base import Gramian
from percasym.engine import optimizer
from percasym.engine.base import StepInfo
from percasym.engine.precision import compute_dtype
from percasym.engine.stash import Stash
from percasym.models.base import Batch
from percasym.objectives.token_nll import TokenNll, supervised
from percasym.settings import DeepSpeedSettings, Sft
from percasym.types import Span


class DeepSpeedEngine:
    """One model and its optimizer under ZeRO; the contract is `percasym.engine.base.Engine`."""

    rank = 0
    num_ranks = 1

    def __init__(self, model: PreTrainedModel, *, settings: DeepSpeedSettings, paradigm: Sft, device: torch.device) -> None:
        """Move `model` to `device` and wrap it; `paradigm` gives learning rate, betas, decay and clipping."""
        deepspeed = _start(device)
        self._device = device
        self._zero_stage = settings.zero_stage
        nn.Module.to(model, device).train()
        self._module = TokenNll(model, dtype=compute_dtype(settings.precision, device))
        self._trained = [parameter for parameter in self._module.parameters() if parameter.requires_grad]
        self._stash = Stash(self._trained)
        self._optimizer = optimizer.adamw(self._module, paradigm)
        with _local_rank():
            self._engine, *_ = deepspeed.initialize(model=self._module, optimizer=self._optimizer, config=_config(settings, paradigm))
        # At one rank stage 0 has nothing to reduce, and would copy every gradient twice to find out.
        self._engine.enable_backward_allreduce = self.num_ranks > 1 or settings.zero_stage > 0

    @property
    def model(self) -> PreTrainedModel:
        """The Hugging Face model, for decoding and saving."""
        return self._module.model

    def nll(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of every supervised token, [B, T]; zero elsewhere."""
        if not self.model.training:  # An evaluation leaves it in inference mode.
            self._module.train()
        at = supervised(batch.labels).to(self._device)
        return self._engine(at, **batch.to(self._device).arguments)

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss` to the open gradient."""
        self._engine.backward(loss * self.num_ranks, scale_wrt_gas=False)  # DeepSpeed averages over ranks; a step is a sum.

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
        optimizer.set_lr(self._optimizer, lr)
        self._engine.step()
        return StepInfo(grad_norm=float(norm), lr=lr)

    def save(self, directory: Path) -> None:
        """Write weights, optimizer and random state for `load`."""
        optimizer.save(directory, self._module.model, self._optimizer)

    def load(self, directory: Path) -> None:
        """Restore what `save` wrote."""
        optimizer.load(directory, self._module.model, self._optimizer)
        if self._zero_stage:
            self._engine.optimizer.refresh_fp32_params()  # ZeRO updates its own copy of the weights.


def _start(device: torch.device) -> ModuleType:
    """DeepSpeed, imported quietly, with a process group of one."""
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed chooses its device at import.
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed
    from deepspeed.ops import __compatible_ops__

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("engine=deepspeed trains in one process so far, and WORLD_SIZE asks for more. Start one process (launch.nproc=1).")
    __compatible_ops__["deepspeed_shm_comm"] = False  # One rank shares memory with nobody; compiling the op takes 26 s.
    if not distributed.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
    return deepspeed


@contextmanager
def _local_rank() -> Iterator[None]:
    """The variable without which DeepSpeed refuses to start; left behind, it would make other libraries believe in a launcher."""
    told = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = told or "0"
    try:
        yield
    finally:
        if told is None:
            del os.environ["LOCAL_RANK"]


def _config(settings: DeepSpeedSettings, paradigm: Sft) -> dict[str, Any]:
    return {
        "train_micro_batch_size_per_gpu": 1,  # Required, and read by nothing: the trainer forms the batches.
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": paradigm.max_grad_norm,  # Unset, DeepSpeed clips at 1.0 on its own.
        "zero_optimization": {"stage": settings.zero_stage},
        "zero_allow_untested_optimizer": True,
        "steps_per_print": None,
    }
