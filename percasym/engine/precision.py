"""The number formats in which a run computes and stores weights.

Trained weights are float32, and so are their gradients and AdamW states. Trunk and head *compute* in bfloat16 (autocast) where the hardware
supports it natively. Frozen linear layers under adapters are never updated, so they need no float32 master and are stored in the compute
type: half the memory, and the same bits in every product.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from transformers import PreTrainedModel

from percasym.config.sampling import Precision
from percasym.config.schema import ConfigError
from percasym.config.settings import TorchSettings
from percasym.objectives.onednn import multiplies_bfloat16, round_factors, unrounded


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The type in which trunk and head compute.

    `auto` keeps float32 on a CPU even where it has bfloat16 instructions: the packaged models are small, and casting their weights costs
    more than the multiplication saves. bfloat16 on a CPU computes what a GPU would, at any speed; for speed, `engine.cpu_matmul` rounds the
    factors of linear layers alone.

    Raises ValueError when bfloat16 is requested on a GPU that only emulates it.
    """
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bfloat16" and device.type == "cuda" and not native:
        raise ValueError("engine.precision=bfloat16 needs a GPU that computes it natively, which this one lacks. Use auto.")
    return torch.bfloat16 if precision == "bfloat16" or (native and precision == "auto") else torch.float32


def lowered(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The same model, with the frozen linear layers under adapters stored in `dtype`, to which autocast would round them at each use.

    A model without adapters is not changed: its frozen parts are saved with the rest, and must not be rounded.

    Raises ConfigError when the model's attention kernel cannot compute in `dtype`.
    """
    if _flash(model) and dtype == torch.float32:
        raise ConfigError("model.attention=flash_attention_2 has no float32 kernel, and this run computes in float32. Use sdpa.")
    if not getattr(model, "_hf_peft_config_loaded", False):
        return model
    return rounded_linear(model, dtype)


def rounded_linear(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The same model with its frozen linear layers stored in `dtype`, to which autocast would round them at each use."""
    for module in frozen_linear(model):
        module.to(dtype)
    return model


def frozen_linear(model: PreTrainedModel) -> Iterator[nn.Linear]:
    """The frozen linear layers, but a head that is tied to the embeddings."""
    embeddings = model.get_input_embeddings().weight
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.weight is not embeddings and not module.weight.requires_grad:
            yield module


def stored_bytes(model: PreTrainedModel, dtype: torch.dtype, *, all_rounded: bool) -> int:
    """Bytes of all weights as an engine that computes in `dtype` will store them: `all_rounded`, or only what `lowered` rounds."""
    numel = sum(parameter.numel() for parameter in model.parameters())
    if all_rounded:
        return dtype.itemsize * numel
    adapted = getattr(model, "_hf_peft_config_loaded", False)
    frozen = sum(parameter.numel() for module in frozen_linear(model) for parameter in module.parameters()) if adapted else 0
    return torch.float32.itemsize * (numel - frozen) + dtype.itemsize * frozen


def rounded(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The same model with all weights stored in `dtype`, for an engine that keeps masters in float32; buffers stay as they are.

    Embeddings are returned in float32, so the residual stream is float32 as under autocast of float32 weights: what differs is the
    rounding of gains, biases and embeddings, and nothing in a matrix product.

    Raises ConfigError when the run does not compute in a lower type than float32.
    """
    if dtype == torch.float32:
        raise ConfigError("engine.weights=bfloat16 needs engine.precision=bfloat16, and this run computes in float32. Set both, or none.")
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    model.get_input_embeddings().register_forward_hook(lambda module, ids, output: output.float())
    return model


def with_factors(model: PreTrainedModel, engine: object, device: torch.device) -> PreTrainedModel:
    """The same model, whose linear layers multiply in bfloat16 on a CPU where the settings of its engine say so (engine.cpu_matmul).

    Raises ConfigError where the device does not multiply it.
    """
    if isinstance(engine, TorchSettings) and engine.cpu_matmul == "bfloat16":
        require_bfloat16_factors(device)
        round_factors(model, torch.bfloat16)
    return model


def require_bfloat16_factors(device: torch.device) -> None:
    """Raise ConfigError where engine.cpu_matmul=bfloat16 has no hardware: on another device, or a CPU that would only emulate it."""
    if device.type != "cpu":
        raise ConfigError(f"engine.cpu_matmul=bfloat16 is for a CPU, and this run is on {device.type}. Use engine.precision=bfloat16.")
    if not multiplies_bfloat16():
        raise ConfigError("engine.cpu_matmul=bfloat16 needs a processor that multiplies it (AVX512_BF16 or AMX), and this one does not.")


@contextmanager
def inference(model: PreTrainedModel, device: torch.device) -> Iterator[None]:
    """The precision of an evaluation: float32, or autocast where some weights are stored in less or the attention kernel has no float32."""
    smaller = {parameter.dtype for parameter in model.parameters()} - {torch.float32}
    if _flash(model):
        smaller.add(torch.bfloat16)
    with unrounded(model), torch.autocast(device.type, dtype=smaller.pop()) if smaller else nullcontext():
        yield


def _flash(model: PreTrainedModel) -> bool:
    return model.config._attn_implementation == "flash_attention_2"
