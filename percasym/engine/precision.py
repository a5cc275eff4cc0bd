"""Which number formats a run computes and holds weights in.

What is trained is float32, with its gradient and its AdamW state; bfloat16 is what trunk and head *compute* in (autocast),
and only where the hardware does it itself. Linear layers that rest under adapters are never updated, need no float32
master, and are held in the computing type: half the memory, and the same bits in every product.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from transformers import PreTrainedModel

from percasym.config.schema import ConfigError
from percasym.config.settings import Precision


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """What trunk and head compute in.

    `auto` keeps float32 on a CPU even where it has bfloat16 instructions: the packaged models are small,
    and casting their weights costs more than the multiplication saves.

    Raises ValueError when bfloat16 is asked of a device that only emulates it.
    """
    native = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "bfloat16" and not native:
        raise ValueError(f"engine.precision=bfloat16 needs hardware that computes it natively, which this {device.type} lacks. Use auto.")
    return torch.bfloat16 if native and precision != "float32" else torch.float32


def lowered(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """The same model, the linear layers that rest under adapters held in `dtype`: all that autocast would round at each use.

    A model without adapters stays as it is: its frozen parts are saved with the rest, and no run may round what it did not train.

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
    """What an evaluation runs in: float32, as the weights are; autocast where some are held in less, or attention has no float32."""
    smaller = {parameter.dtype for parameter in model.parameters()} - {torch.float32}
    if _flash(model):
        smaller.add(torch.bfloat16)
    return torch.autocast(device.type, dtype=smaller.pop()) if smaller else nullcontext()


def _flash(model: PreTrainedModel) -> bool:
    return model.config._attn_implementation == "flash_attention_2"
