"""The number format of a trained model on disk: that of the checkpoint it comes from, half the size of the float32 weights of training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from percasym.config.files import read_json

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel


def stored_dtype(model: PreTrainedModel, source: PreTrainedConfig) -> torch.dtype:
    """The format in which a trained model is written, where `source` is the configuration of the checkpoint that it comes from.

    float32 for adapters, which have no source, and where the source names no half precision.
    """
    import torch

    if getattr(model, "_hf_peft_config_loaded", False):
        return torch.float32
    named = getattr(source, "dtype", None) or getattr(source.get_text_config(), "dtype", None)
    return named if named in (torch.bfloat16, torch.float16) else torch.float32


def save_as(model: PreTrainedModel, dtype: torch.dtype, directory: Path) -> None:
    """`save_pretrained` with the weights rounded to `dtype`, each once, on the CPU; the model keeps its own."""
    import torch

    if dtype == torch.float32:
        model.save_pretrained(directory)
        return
    rounded: dict[tuple[int, torch.Size], torch.Tensor] = {}  # By memory: tied weights stay one tensor.
    state = {}
    for name, value in model.state_dict().items():
        place = value.data_ptr(), value.shape
        if place not in rounded:
            rounded[place] = value.to("cpu", dtype) if value.is_floating_point() else value
        state[name] = rounded[place]
    model.save_pretrained(directory, state_dict=state)


def record(directory: Path, dtype: torch.dtype) -> None:
    """Name the format of the weights in the config.json of `directory`: transformers writes that of the model in memory."""
    file = directory / "config.json"
    config = _with_dtype(read_json(file), str(dtype).removeprefix("torch."))
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _with_dtype(config: dict[str, Any], name: str) -> dict[str, Any]:
    nested = {key: _with_dtype(value, name) if isinstance(value, dict) else value for key, value in config.items()}
    return nested | ({"dtype": name} if "dtype" in config else {})
