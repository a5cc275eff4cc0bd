"""Loading from a Hugging Face directory or hub id: the one path for tiny and 8B checkpoints.

Only safetensors weights, no remote code, and the PIL image backend (torchvision is not needed).
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OURS = files("percasym") / "models" / "tiny"


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded, said in one sentence."""


def packaged(family: str) -> str:
    """Directory of the tiny checkpoint that travels with the package."""
    return str(OURS / family)


@lru_cache(maxsize=4)
def tokenizer(path: str) -> Any:
    """The tokenizer of a checkpoint."""
    from transformers import AutoTokenizer

    return _loaded(AutoTokenizer, path, trust_remote_code=False)


@lru_cache(maxsize=4)
def image_processor(path: str) -> Any:
    """The image processor of a checkpoint, on the PIL backend."""
    from transformers import AutoImageProcessor

    return _loaded(AutoImageProcessor, path, trust_remote_code=False, backend="pil")


def model(path: str) -> PreTrainedModel:
    """The model of a checkpoint in float32 on the CPU."""
    import torch
    from transformers import AutoModelForImageTextToText

    return _loaded(AutoModelForImageTextToText, path, trust_remote_code=False, use_safetensors=True, dtype=torch.float32)


def save(trained: PreTrainedModel, source: str, directory: Path) -> None:
    """Write the weights of a model that came from `source` beside everything else that `source` holds."""
    trained.save_pretrained(directory)
    tokenizer(source).save_pretrained(directory)
    image_processor(source).save_pretrained(directory)


def _loaded(auto: Any, path: str, **options: Any) -> Any:
    local = Path(path)
    if local.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1:
        if not local.expanduser().is_dir():
            raise CheckpointError(f"No checkpoint directory at {path}. Give model.path a Hugging Face directory or a hub id.")
        if not (local.expanduser() / "config.json").is_file():
            raise CheckpointError(f"{path} holds no config.json, so it is not a Hugging Face checkpoint. Check model.path.")
    try:
        return auto.from_pretrained(str(local.expanduser()) if local.expanduser().is_dir() else path, **options)
    except Exception as error:  # transformers raises many types for one cause: the checkpoint cannot be read.
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"The checkpoint {path} could not be loaded ({type(error).__name__}: {reason}). Check model.path.") from error
