"""The engine on DeepSpeed; no other file imports it.

Unlike DeepSpeed's own loop, which counts micro-batches to find the end of a step and clips inside it, the trainer ends the step
(unmanaged accumulation) and the engine clips. DeepSpeed computes, reduces and updates; micro-batches are never averaged.

`ZeroUpdater` keeps and restores this rank's part of the gradient, for which it uses internals of DeepSpeed (as of 0.19.8). For each
parameter group i, both the optimizer of ZeRO stages 1 and 2 and that of stage 3 have:

- the flat master weights that AdamW updates, this rank's part: `single_partition_of_fp32_groups[i]`, `fp32_partitioned_groups_flat[i]`;
- their reduced gradient: `averaged_gradients[i]`, tensors that `step` concatenates, or with offload the masters' own `.grad`;
- which parameters are in it: `round_robin_bit16_groups` and `_offsets`, `fp16_groups` with `partition_numel()` of each;
- what fills it from the backward passes so far: `reduce_gradients()` in stage 1, `finalize_gradient_accumulation_boundary()` in 2 and 3;
- `step()`, called directly: `engine.step()` would reduce again a gradient that was kept and put back;
- the norms that `step` would clip by: `_get_norm_groups()` of stage 3, replaced, and `compute_grad_norm` of the others.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel

from percasym.config.paradigm import Training
from percasym.config.schema import ConfigError
from percasym.config.settings import DeepSpeedSettings
from percasym.engine import partition
from percasym.engine.base import Updater
from percasym.engine.engine import Backend, SpanEngine
from percasym.engine.inner_products import Parts
from percasym.engine.loading import assign_whole, give_room, hand_over_buffers, handed_over
from percasym.engine.partition import Layout
from percasym.engine.precision import compute_dtype, lowered, rounded, stored_bytes
from percasym.engine.ranks import SINGLE_RANK, Ranks
from percasym.engine.reference import reference_nll
from percasym.engine.torch import WholeUpdater, adamw, set_lr
from percasym.models.base import Batch
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
    """Move the model of rank 0 to `device` (under ZeRO-3, this rank's part of it) and create its optimizer.

    The model of another rank may lie on the meta device.

    `paradigm` gives learning rates, betas, weight decay and clipping; `vision` are the names of the parameters that `paradigm.lr_vision` is
    for. Losses are those of the model's distribution at `temperature`.
    Raises ConfigError for `weights=bfloat16` in a run that computes in float32.
    """
    stage = settings.zero_stage
    dtype = compute_dtype(settings.precision, device)
    if settings.weights == "bfloat16":
        rounded(model, dtype)
    module = TokenNll(lowered(model, dtype), dtype=dtype, temperature=temperature).train()
    optimizer = adamw(module, paradigm, vision)  # Before ZeRO-3 partitions the parameters: their shapes decide which ones decay.
    config = _config(settings, pin_memory=device.type == "cuda")
    deepspeed = _start(device)
    with _local_rank(device, stay=stage == 3):
        if stage == 3:
            _partition(deepspeed, module, config, device, ranks)
        else:
            handed_over(model, device, ranks)
        engine, zero, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
    if stage == 0:
        updater: Updater = WholeUpdater(module, optimizer, ranks)
    else:
        updater = ZeroUpdater(zero, optimizer, module, ranks, stage=stage, offload=settings.offload)
    averaged_over = ranks.num_ranks if updater.split else 1  # ZeRO averages over ranks, and our gradient is a sum.
    backend = Backend(
        module=module,
        forward=engine,
        backward=lambda loss: engine.backward(loss * averaged_over, scale_wrt_gas=False),
        updater=updater,
        gathered_weights=partial(_gathered, deepspeed, engine) if stage == 3 else nullcontext,
        assign=partial(_assign, deepspeed, updater, ranks) if stage == 3 else partial(assign_whole, ranks),
        collect=partial(_collect, deepspeed) if stage == 3 else None,
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
    from deepspeed.runtime.zero import stage3  # noqa: F401, used by _gathered

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
    """Set LOCAL_RANK, by which DeepSpeed selects its device, to the index of `device`; as it was at the end unless `stay`.

    It is no other than the launcher's where all GPUs are visible. Other libraries take the variable as a sign of a launcher, but ZeRO-3
    reads it in every forward.
    """
    given = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = str(device.index or 0) if device.type == "cuda" else given or "0"
    try:
        yield
    finally:
        if not stay:
            del os.environ["LOCAL_RANK"]
            os.environ |= {} if given is None else {"LOCAL_RANK": given}


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
        "bf16": {"enabled": settings.weights == "bfloat16"},
        "data_types": {"grad_accum_dtype": "fp32"},  # With rounded weights, each micro-batch's gradient is rounded once, and no sum.
        "communication_data_type": "fp32",
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # With offload, use PyTorch's fused AdamW: DeepSpeed's own must be compiled first.
        "steps_per_print": None,
    }


def _partition(deepspeed: ModuleType, module: TokenNll, config: dict[str, Any], device: torch.device, ranks: Ranks) -> None:
    """Partition the parameters of rank 0 over ranks, one after another, so that no device ever holds the whole model."""
    deepspeed.zero.register_external_parameter(module, module.model.lm_head.weight)  # The fused loss uses it outside its module.
    partitioner = deepspeed.zero.Init(module=nn.Module(), config_dict_or_path=config)
    for parameter in module.parameters():
        give_room(parameter, device)
        partitioner._convert_to_zero_parameters([parameter])  # Broadcasts it from rank 0, keeps this rank's part and frees the rest.
    hand_over_buffers(module, device, ranks)


def _gathered(deepspeed: ModuleType, engine: Any) -> AbstractContextManager[object]:
    """The context in which ZeRO-3 gathers all weights on every rank, to be read."""
    return deepspeed.runtime.zero.stage3.unwrap_model_for_generation(engine)


@torch.no_grad()
def _assign(deepspeed: ModuleType, updater: Updater, ranks: Ranks, parameter: nn.Parameter, value: Tensor | None) -> None:
    """Give a partitioned parameter, and its master, the value that rank 0 passes."""
    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
        if value is not None:
            parameter.copy_(value)
    if parameter.requires_grad and parameter.dtype != torch.float32:
        assert isinstance(updater, ZeroUpdater), "ZeRO-3 has one"
        shape: Any = parameter.ds_shape  # type: ignore[attr-defined]
        whole = torch.empty(shape, device=ranks.device) if value is None else value.to(ranks.device)
        ranks.broadcast_in_place(whole)
        updater.set_master(parameter, whole)


@torch.no_grad()
def _collect(deepspeed: ModuleType, parameter: nn.Parameter) -> Tensor:
    """A partitioned parameter in full and in float32: its master where the weight itself is rounded."""
    if parameter.requires_grad and parameter.dtype != torch.float32:
        return deepspeed.utils.safe_get_full_fp32_param(parameter)
    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().to(torch.float32, copy=True)


def sharded_reference(
    model: PreTrainedModel, *, settings: DeepSpeedSettings, device: torch.device, ranks: Ranks, temperature: float
) -> Callable[[Batch], Tensor]:
    """The losses of a frozen model of which each rank keeps a part (ZeRO-3), [B, T] of a batch."""
    dtype = compute_dtype(settings.precision, device)
    if settings.weights == "bfloat16":
        rounded(model, dtype)
    module = TokenNll(model.requires_grad_(False), dtype=dtype, temperature=temperature).eval()
    config = _config(replace(settings, offload=False), pin_memory=False)
    deepspeed = _start(device)
    with _local_rank(device, stay=True):
        _partition(deepspeed, module, config, device, ranks)
        engine, *_ = deepspeed.initialize(model=module, config=config)
    return partial(reference_nll, engine, device)


def require_room_to_decode(model: PreTrainedModel, settings: DeepSpeedSettings, device: torch.device) -> None:
    """Raise ConfigError for a model whose partitioned weights fit the device and whose gathered weights, for an evaluation, do not."""
    if device.type != "cuda" or settings.zero_stage != 3:
        return
    needed = stored_bytes(model, compute_dtype(settings.precision, device), all_rounded=settings.weights == "bfloat16")
    there = torch.cuda.get_device_properties(device).total_memory
    if needed > MAX_WEIGHTS_FRAC * there:
        sizes = f"{needed / 1e9:.0f} GB of weights on each device, which has {there / 1e9:.0f} GB"
        raise ConfigError(
            f"engine.zero_stage=3 trains in parts, but evaluating gathers {sizes}. Set evaluation.engine=vllm with "
            "evaluation.tensor_parallel, or choose a smaller model.size."
        )


class ZeroUpdater:
    """Every rank holds and updates its own part of the model: one flat tensor for each parameter group."""

    split = True

    def __init__(self, zero: Any, optimizer: Optimizer, module: nn.Module, ranks: Ranks, *, stage: int, offload: bool) -> None:
        """`zero` is the optimizer that `deepspeed.initialize` wrapped around `optimizer`."""
        self._zero, self._optimizer, self._stage, self._offload = zero, optimizer, stage, offload
        self._module, self._rank = module, ranks.rank
        # The engine has clipped; DeepSpeed's norm is of a float64 copy of the gradient, 8 GB for 1e9 elements.
        if stage == 3:
            zero._get_norm_groups = lambda: [torch.zeros((), device=ranks.device)]
        elif not offload:  # With offload it is summed up during the backward passes.
            zero.compute_grad_norm = False
        self._masters: Sequence[Tensor] = zero.fp32_partitioned_groups_flat if stage == 3 else zero.single_partition_of_fp32_groups
        self._open: list[Tensor] | None = None
        self._kept_dtype = zero.dtype
        """Of a span's gradient that is kept beside the open one: that of the weights."""

    @torch.no_grad()
    def gradient(self) -> Parts:
        """This rank's part of the open gradient, summed over ranks."""
        if self._open is None:
            self._finalize()
            self._set(self._buffers() if self._offload else self._flat())
        assert self._open is not None
        return self._open

    @torch.no_grad()
    def take(self, *, last: bool = False) -> Parts:
        """Return the open gradient for the caller to keep, and open an empty one; `last`: no backward pass comes before `put`."""
        parts = self.gradient()
        if last:
            self._open = None
            return parts
        if self._stage == 3 or self._offload:  # DeepSpeed reuses these buffers.
            parts = [part.to(self._kept_dtype, copy=True) for part in parts if part is not None]
        self._forget()
        return parts

    @torch.no_grad()
    def put(self, parts: Parts) -> None:
        """Open a gradient that is already summed over ranks."""
        assert self._open is None, "a gradient is still open"
        summed = [part for part in parts if part is not None]
        if self._offload:
            for buffer, part in zip(self._buffers(), summed, strict=True):
                if buffer is not part:
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
        """Copy the model's weights to the masters, where those are no more exact."""
        if self._zero.dtype == torch.float32:
            self._zero.refresh_fp32_params()

    def set_master(self, parameter: nn.Parameter, whole: Tensor) -> None:
        """Set this rank's part of the master of `parameter` from its full value."""
        for master, group in zip(self._masters, self._zero.fp16_groups, strict=True):
            offset = 0
            for each in group:
                part = each.partition_numel()
                if each is parameter:
                    own = whole.flatten()[part * distributed.get_rank() :][:part]  # The last rank's part may be shorter.
                    master.data[offset : offset + len(own)] = own
                offset += part

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

    def layout(self) -> Layout:
        """Which part of which parameter each of this rank's flat tensors holds."""
        names, zero = {id(parameter): name for name, parameter in self._module.named_parameters()}, self._zero
        if self._stage == 3:
            split = [[(names[id(each)], each.ds_numel, each.partition_numel()) for each in group] for group in zero.fp16_groups]
            return partition.of_split_parameters(split, self._rank)
        placed = [
            [(names[id(each)], each.numel(), offset) for each, offset in zip(group, offsets, strict=True)]
            for group, offsets in zip(zero.round_robin_bit16_groups, zero.round_robin_bit16_offsets, strict=True)
        ]
        return partition.of_flat_groups(placed, zero.partition_size, self._rank)

    def tensors(self) -> Sequence[Tensor]:
        """This rank's flat masters."""
        return self._masters

    @property
    def _groups(self) -> range:
        return range(len(self._masters))

    def _flat(self) -> list[Tensor]:
        """The reduced gradients, one tensor for each group: joined, or where stage 3 has them one after another, views."""
        if self._stage == 3:
            return list(self._zero.grad_partitions_flat_buffer.split([master.numel() for master in self._masters]))
        return [torch.cat([part.flatten() for part in self._zero.averaged_gradients[i]]) for i in self._groups]

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
