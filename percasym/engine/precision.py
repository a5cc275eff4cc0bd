"""The number formats in which a run computes and stores weights.

Trained weights are float32, and so are their gradients and AdamW states. Trunk and head *compute* in bfloat16 (autocast) where the hardware
supports it natively. Frozen linear layers under adapters are never updated, so they need no float32 master and are stored in the compute
type: half the memory, and the same bits in every product.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from transformers import PreTrainedModel

from percasym.config.sampling import Precision
from percasym.config.schema import ConfigError


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The type in which trunk and head compute.

    `auto` keeps float32 on a CPU even where it has bfloat16 instructions: the packaged models are small,
    and casting their weights costs more than the multiplication saves.

    Raises ValueError when bfloat16 is requested on a device that only emulates it.
    """
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bfloat16" and not native:
        raise ValueError(f"engine.precision=bfloat16 needs hardware that computes it natively, which this {device.type} lacks. Use auto.")
    return torch.bfloat16 if native and precision != "float32" else torch.float32


def lowered(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The same model, with the frozen linear layers under adapters stored in `dtype`, to which autocast would round them at each use.

    A model without adapters is not changed: its frozen parts are saved with the rest, and must not be rounded.

    Raises ConfigError when the model's attention kernel cannot compute in `dtype`.
    """
    if _flash(model) and dtype == torch.float32:
        raise ConfigError("model.attention=flash_attention_2 has no float32 kernel, and this run computes in float32. Use sdpa.")
    if not getattr(model, "_hf_peft_config_loaded", False):
        return model
    embeddings = model.get_input_embeddings().weight
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.weight is not embeddings and not module.weight.requires_grad:
            module.to(dtype)
    return model


def inference(model: PreTrainedModel, device: torch.device) -> AbstractContextManager[object]:
    """The precision of an evaluation: float32, or autocast where some weights are stored in less or the attention kernel has no float32."""
    smaller = {parameter.dtype for parameter in model.parameters()} - {torch.float32}
    if _flash(model):
        smaller.add(torch.bfloat16)
    return torch.autocast(device.type, dtype=smaller.pop()) if smaller else nullcontext()


def _flash(model: PreTrainedModel) -> bool:
    return model.config._attn_implementation == "flash_attention_2"
