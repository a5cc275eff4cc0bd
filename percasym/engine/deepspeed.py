"""The engine on DeepSpeed; no other file imports it.

Unlike DeepSpeed's own loop, which counts micro-batches to find the end of a step and clips inside it, the trainer ends the step
(unmanaged accumulation) and the engine clips. DeepSpeed computes, reduces and updates; micro-batches are never averaged.

`ZeroUpdater` keeps and restores this rank's part of the gradient, for which it uses internals of DeepSpeed (as of 0.19.8). For each
parameter group i, both the optimizer of ZeRO stages 1 and 2 and that of stage 3 have:

- the flat master weights that AdamW updates, this rank's part: `single_partition_of_fp32_groups[i]`, `fp32_partitioned_groups_flat[i]`;
- their reduced gradient: `averaged_gradients[i]`, tensors that `step` concatenates, or with offload the masters' own `.grad`;
- what fills it from the backward passes so far: `reduce_gradients()` in stage 1, `finalize_gradient_accumulation_boundary()` in 2 and 3;
- `step()`, called directly: `engine.step()` would reduce again a gradient that was kept and put back.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from percasym.config.paradigm import Training
from percasym.config.schema import ConfigError
from percasym.config.settings import DeepSpeedSettings
from percasym.engine.base import Updater
from percasym.engine.engine import Backend, SpanEngine
from percasym.engine.inner_products import Parts
from percasym.engine.precision import compute_dtype, lowered
from percasym.engine.ranks import SINGLE_RANK, Ranks
from percasym.engine.torch import WholeUpdater, adamw, set_lr
from percasym.objectives.token_nll import TokenNll

MAX_WEIGHTS_FRAC = 0.8
"""Share of a device's memory that gathered weights may take during an evaluation (our choice: the rest is for the key-value cache)."""


def deepspeed_engine(
    model: PreTrainedModel,
    *,
    settings: DeepSpeedSettings,
    paradigm: Training,
    device: torch.device,
    ranks: Ranks = SINGLE_RANK,
    temperature: float = 1.0,
    vision: Sequence[str] = (),
) -> SpanEngine:
    """Move `model` to `device` (under ZeRO-3, this rank's part of it) and create its optimizer.

    `paradigm` gives learning rates, betas, weight decay and clipping; `vision` are the names of the parameters that `paradigm.lr_vision` is
    for. Losses are those of the model's distribution at `temperature`.
    Raises ConfigError when a device could not hold the whole model during an evaluation.
    """
    stage = settings.zero_stage
    dtype = compute_dtype(settings.precision, device)
    module = TokenNll(lowered(model, dtype), dtype=dtype, temperature=temperature).train()
    optimizer = adamw(module, paradigm, vision)  # Before ZeRO-3 partitions the parameters: their shapes decide which ones decay.
    config = _config(settings, pin_memory=device.type == "cuda")
    deepspeed = _start(device)
    with _local_rank(device, stay=stage == 3):
        if stage == 3:
            _check_memory(model, device)
            _partition(deepspeed, module, config, device)
        else:
            nn.Module.to(model, device)
        engine, zero, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
    if stage == 0:
        updater: Updater = WholeUpdater(module, optimizer, ranks)
    else:
        updater = ZeroUpdater(zero, optimizer, stage=stage, offload=settings.offload)
    averaged_over = ranks.num_ranks if updater.split else 1  # ZeRO averages over ranks, and our gradient is a sum.
    backend = Backend(
        module=module,
        forward=engine,
        backward=lambda loss: engine.backward(loss * averaged_over, scale_wrt_gas=False),
        updater=updater,
        gathered_weights=_gathering(deepspeed, engine) if stage == 3 else lambda changing: nullcontext(),
        gather=(lambda parameter: deepspeed.zero.GatheredParameters([parameter])) if stage == 3 else None,
        traced=stage == 3,
    )
    return SpanEngine(backend, paradigm=paradigm, device=device, ranks=ranks)


def _start(device: torch.device) -> ModuleType:
    """Import DeepSpeed without its log messages, and initialise a process group of one where there is none."""
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed selects its device at import.
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed
    from deepspeed import ops
    from deepspeed.runtime.zero import stage3  # noqa: F401, used by _gathering

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)  # Deprecated names in DeepSpeed 0.19.
    # Its shared-memory all-reduce takes 26 s to compile and gloo does not need it. Querying the table of all ops would run a compiler.
    vars(ops).setdefault("__compatible_ops__", {})["deepspeed_shm_comm"] = False
    if not distributed.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
    return deepspeed


@contextmanager
def _local_rank(device: torch.device, *, stay: bool) -> Iterator[None]:
    """Set LOCAL_RANK, which DeepSpeed requires, where no launcher has set it; removed at the end unless `stay`.

    Other libraries take the variable as a sign of a launcher, but ZeRO-3 reads it in every forward.
    """
    given = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = given or str(device.index or 0)
    try:
        yield
    finally:
        if given is None and not stay:
            del os.environ["LOCAL_RANK"]


def _config(settings: DeepSpeedSettings, *, pin_memory: bool) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": settings.zero_stage}
    if settings.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": pin_memory}
    return {
        "train_micro_batch_size_per_gpu": 1,  # Required but unused: the trainer forms the batches.
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": 0.0,  # If unset, DeepSpeed clips at 1.0.
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # With offload, use PyTorch's fused AdamW: DeepSpeed's own must be compiled first.
        "steps_per_print": None,
    }


def _partition(deepspeed: ModuleType, module: TokenNll, config: dict[str, Any], device: torch.device) -> None:
    """Partition the parameters over ranks, one after another, so that no device ever holds the whole model."""
    deepspeed.zero.register_external_parameter(module, module.model.lm_head.weight)  # The fused loss uses it outside its module.
    deepspeed.zero.Init(module=module, config_dict_or_path=config)
    for buffer in module.buffers():
        buffer.data = buffer.data.to(device)


def _gathering(deepspeed: ModuleType, engine: Any) -> Callable[[bool], AbstractContextManager[object]]:
    """The context in which ZeRO-3 gathers all weights on every rank."""

    def gathered(changing: bool) -> AbstractContextManager[object]:
        if changing:
            return deepspeed.zero.GatheredParameters(engine.parameters(), modifier_rank=0)
        return deepspeed.runtime.zero.stage3.unwrap_model_for_generation(engine)

    return gathered


def _check_memory(model: PreTrainedModel, device: torch.device) -> None:
    """Raise ConfigError for a model whose partitioned weights fit the device and whose gathered weights do not."""
    if device.type != "cuda":
        return
    needed = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    there = torch.cuda.get_device_properties(device).total_memory
    if needed > MAX_WEIGHTS_FRAC * there:
        sizes = f"{needed / 1e9:.0f} GB of weights on each device, which has {there / 1e9:.0f} GB"
        raise ConfigError(f"engine.zero_stage=3 trains in parts, but evaluating gathers {sizes}. Choose a smaller model.size.")


class ZeroUpdater:
    """Every rank holds and updates its own part of the model: one flat tensor for each parameter group."""

    split = True

    def __init__(self, zero: Any, optimizer: Optimizer, *, stage: int, offload: bool) -> None:
        """`zero` is the optimizer that `deepspeed.initialize` wrapped around `optimizer`."""
        self._zero, self._optimizer, self._stage, self._offload = zero, optimizer, stage, offload
        self._masters: Sequence[Tensor] = zero.fp32_partitioned_groups_flat if stage == 3 else zero.single_partition_of_fp32_groups
        self._open: list[Tensor] | None = None

    @torch.no_grad()
    def gradient(self) -> Parts:
        """This rank's part of the open gradient, summed over ranks."""
        if self._open is None:
            self._finalize()
            averaged = self._zero.averaged_gradients
            flat = self._buffers() if self._offload else [torch.cat([part.flatten() for part in averaged[i]]) for i in self._groups]
            self._set(flat)
        assert self._open is not None
        return self._open

    @torch.no_grad()
    def take(self) -> Parts:
        """Return the open gradient for the caller to keep, and open an empty one."""
        parts = self.gradient()
        if self._offload:  # DeepSpeed reuses these buffers.
            parts = [part.clone() for part in parts if part is not None]
        self._forget()
        return parts

    @torch.no_grad()
    def put(self, parts: Parts) -> None:
        """Open a gradient that is already summed over ranks."""
        assert self._open is None, "a gradient is still open"
        summed = [part for part in parts if part is not None]
        if self._offload:
            for buffer, part in zip(self._buffers(), summed, strict=True):
                buffer.copy_(part)
            summed = self._buffers()
        self._set(summed)

    def apply(self, lr: float) -> None:
        """One optimizer step on the masters, then gather the new weights on all ranks."""
        self.gradient()
        set_lr(self._optimizer, lr)
        self._zero.step()
        self._zero.zero_grad()
        self._forget()

    def refresh(self) -> None:
        """Copy the model's weights to the masters."""
        self._zero.refresh_fp32_params()

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state of this rank's part."""
        self._assign()
        state = self._optimizer.state_dict()
        self._unassign()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the optimizer's state."""
        self._assign()
        self._optimizer.load_state_dict(state)
        self._unassign()

    @property
    def _groups(self) -> range:
        return range(len(self._masters))

    def _buffers(self) -> list[Tensor]:
        return [master.grad for master in self._masters if master.grad is not None]

    def _set(self, flat: list[Tensor]) -> None:
        """Open this gradient, where `step` reads it."""
        if not self._offload:
            self._zero.averaged_gradients = {i: [part] for i, part in enumerate(flat)}
        self._open = flat

    def _finalize(self) -> None:
        """Reduce the gradients of the backward passes so far into `averaged_gradients`."""
        if self._stage == 1:
            self._zero.set_gradient_accumulation_boundary(True)
            self._zero.reduce_gradients()
        else:
            self._zero.finalize_gradient_accumulation_boundary()
        if self._offload and torch.cuda.is_available():
            torch.cuda.synchronize()  # The copies into the masters' gradients are asynchronous.

    def _forget(self) -> None:
        """Clear all gradients, so that the next backward pass starts a new sum."""
        if self._stage == 3:
            self._zero.zero_grad()  # The next backward pass overwrites its gradients ...
            self._zero.grad_partitions_flat_buffer.zero_()  # ... and those of parameters that it does not reach are zero.
            self._zero._offload_boundary_param_ids = set()
        else:
            self._zero.micro_step_id = -1
            self._zero._offload_accumulated_param_ids = set()
        if self._offload:
            for buffer in self._buffers():
                buffer.zero_()
        else:
            self._zero.averaged_gradients = dict.fromkeys(self._groups)
        self._open = None

    def _assign(self) -> None:
        if self._stage == 3:  # Between steps, stage 3 removes the masters from the optimizer.
            self._zero._set_fp32_optimizer_param_groups()

    def _unassign(self) -> None:
        if self._stage == 3:
            self._zero._clear_fp32_optimizer_param_groups()
