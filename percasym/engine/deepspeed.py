"""The same engine on DeepSpeed: with `zero.py`, the only file that knows it.

Unlike DeepSpeed's own loop, which counts micro-batches to find the end of a step and clips inside it, the trainer owns
the step (unmanaged accumulation) and the engine clips; DeepSpeed computes, reduces and updates. Micro-batches are never averaged.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import distributed, nn
from transformers import PreTrainedModel

from percasym.config.paradigm import Training
from percasym.config.schema import ConfigError
from percasym.config.settings import DeepSpeedSettings
from percasym.engine.base import Updater
from percasym.engine.engine import Backend, SpanEngine
from percasym.engine.optimizer import adamw
from percasym.engine.precision import compute_dtype, lowered
from percasym.engine.ranks import ALONE, Ranks
from percasym.engine.torch import WholeUpdater
from percasym.engine.zero import ZeroUpdater
from percasym.objectives.token_nll import TokenNll

ROOM_FRAC = 0.8
"""Share of a device's memory that the whole weights may take while a run evaluates (our choice: the rest is for the key-value cache)."""


def deepspeed_engine(
    model: PreTrainedModel,
    *,
    settings: DeepSpeedSettings,
    paradigm: Training,
    device: torch.device,
    ranks: Ranks = ALONE,
    temperature: float = 1.0,
) -> SpanEngine:
    """Move `model` to `device` (under ZeRO-3, this rank's part of it) and make its optimizer.

    `paradigm` gives learning rate, betas, decay and clipping. Losses are those of the model's distribution at `temperature`.
    Raises ConfigError when a device could not hold the whole model during an evaluation.
    """
    stage = settings.zero_stage
    dtype = compute_dtype(settings.precision, device)
    module = TokenNll(lowered(model, dtype), dtype=dtype, temperature=temperature).train()
    optimizer = adamw(module, paradigm)  # Before ZeRO-3 hides the shapes by which it tells matrices from gains.
    config = _config(settings, pin_memory=device.type == "cuda")
    deepspeed = _start(device)
    with _local_rank(device, stay=stage == 3):
        if stage == 3:
            _check_room(model, device)
            _partition(deepspeed, module, config, device)
        else:
            nn.Module.to(model, device)
        engine, zero, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
    if stage == 0:
        updater: Updater = WholeUpdater(module, optimizer, ranks)
    else:
        updater = ZeroUpdater(zero, optimizer, stage=stage, offload=settings.offload)
    averaged_over = ranks.num_ranks if updater.split else 1  # ZeRO averages over ranks; a step is a sum.
    backend = Backend(
        module=module,
        forward=engine,
        backward=lambda loss: engine.backward(loss * averaged_over, scale_wrt_gas=False),
        updater=updater,
        gathered_weights=_gathering(deepspeed, engine) if stage == 3 else lambda changing: nullcontext(),
        traced=stage == 3,
    )
    return SpanEngine(backend, paradigm=paradigm, device=device, ranks=ranks)


def _start(device: torch.device) -> ModuleType:
    """DeepSpeed, imported quietly, in a process group (of one, where no other is open)."""
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed chooses its device at import.
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    import deepspeed
    from deepspeed import ops
    from deepspeed.runtime.zero import stage3  # noqa: F401, home of the gathering below

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)  # Old names, in DeepSpeed 0.19.
    # An all-reduce over shared memory: compiling it takes 26 s, gloo does without. To ask for the table of all ops would try a compiler.
    vars(ops).setdefault("__compatible_ops__", {})["deepspeed_shm_comm"] = False
    if not distributed.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
    return deepspeed


@contextmanager
def _local_rank(device: torch.device, *, stay: bool) -> Iterator[None]:
    """The variable without which DeepSpeed refuses to start, where no launcher set it.

    Left behind, it makes other libraries believe in a launcher; but ZeRO-3 reads it at every forward.
    """
    told = os.environ.get("LOCAL_RANK")
    os.environ["LOCAL_RANK"] = told or str(device.index or 0)
    try:
        yield
    finally:
        if told is None and not stay:
            del os.environ["LOCAL_RANK"]


def _config(settings: DeepSpeedSettings, *, pin_memory: bool) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": settings.zero_stage}
    if settings.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": pin_memory}
    return {
        "train_micro_batch_size_per_gpu": 1,  # Required, and read by nothing: the trainer forms the batches.
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": 0.0,  # Unset, DeepSpeed clips at 1.0 on its own.
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # With offload, PyTorch's fused AdamW serves: DeepSpeed's own must be compiled first.
        "steps_per_print": None,
    }


def _partition(deepspeed: ModuleType, module: TokenNll, config: dict[str, Any], device: torch.device) -> None:
    """Keep this rank's part of every parameter, one parameter after another: no device ever holds the whole model."""
    deepspeed.zero.register_external_parameter(module, module.model.lm_head.weight)  # The fused loss reads it outside its module.
    deepspeed.zero.Init(module=module, config_dict_or_path=config)
    for buffer in module.buffers():
        buffer.data = buffer.data.to(device)


def _gathering(deepspeed: ModuleType, engine: Any) -> Callable[[bool], AbstractContextManager[object]]:
    """How ZeRO-3 brings all weights to every rank for a while."""

    def whole(changing: bool) -> AbstractContextManager[object]:
        if changing:
            return deepspeed.zero.GatheredParameters(engine.parameters(), modifier_rank=0)
        return deepspeed.runtime.zero.stage3.unwrap_model_for_generation(engine)

    return whole


def _check_room(model: PreTrainedModel, device: torch.device) -> None:
    """Refuse a model that could be trained in parts, but neither evaluated nor saved."""
    if device.type != "cuda":
        return
    needed = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    there = torch.cuda.get_device_properties(device).total_memory
    if needed > ROOM_FRAC * there:
        sizes = f"{needed / 1e9:.0f} GB of weights on each device, which has {there / 1e9:.0f} GB"
        raise ConfigError(f"engine.zero_stage=3 trains in parts, but evaluating gathers {sizes}. Choose a smaller model.size.")
