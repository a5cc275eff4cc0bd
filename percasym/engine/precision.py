"""Which number format a device computes in: bfloat16 only where the hardware does it itself."""

from __future__ import annotations

import torch

from percasym.settings import Precision


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
