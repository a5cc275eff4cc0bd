"""AdamW as every engine uses it."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW, Optimizer

from percasym.config.paradigm import Training


def adamw(module: nn.Module, settings: Training) -> AdamW:
    """AdamW over the trainable parameters; only matrices decay, never gains and biases (the usual choice)."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW([group for group in groups if group["params"]], lr=settings.lr, betas=settings.betas, fused=True)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """One learning rate for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = lr
