"""AdamW as every engine uses it, and its state on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from percasym.settings import Sft

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STATE = "engine.pt"
WEIGHTS = "model"


def adamw(module: nn.Module, settings: Sft) -> AdamW:
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


def save(directory: Path, model: PreTrainedModel, optimizer: Optimizer) -> None:
    """Write `model/` (a Hugging Face directory: config and safetensors) and `engine.pt` (optimizer and random state)."""
    model.save_pretrained(directory / WEIGHTS)
    state = {"optimizer": optimizer.state_dict(), "random": torch.get_rng_state(), "random_devices": _device_states()}
    torch.save(state, directory / STATE)


def load(directory: Path, model: PreTrainedModel, optimizer: Optimizer) -> None:
    """Restore what `save` wrote into a model and an optimizer of the same shapes.

    Raises FileNotFoundError when `directory` is no checkpoint.
    """
    if not (directory / STATE).is_file():
        raise FileNotFoundError(f"{directory} holds no {STATE}, so it is not a checkpoint of a run.")
    weights = type(model).from_pretrained(directory / WEIGHTS, dtype=torch.float32, use_safetensors=True)
    model.load_state_dict(weights.state_dict())
    state = torch.load(directory / STATE, map_location="cpu", weights_only=True)
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["random_devices"])


def _device_states() -> list[Any]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
