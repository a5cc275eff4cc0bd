"""Loading from a Hugging Face directory or hub id: the one path for tiny and 8B checkpoints.

Only safetensors weights, no remote code, and the PIL image backend (torchvision is not needed).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from percasym.models.adapt import ADAPTER, Attention, is_adapter, merged, whole
from percasym.models.released import released

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

OURS = files("percasym") / "models" / "tiny"


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded, said in one sentence."""


def quiet() -> None:
    """Keep transformers' warnings and bars off a screen that has tables and bars of its own."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def packaged(family: str) -> str:
    """Directory of the tiny checkpoint that travels with the package."""
    return str(OURS / family)


def chosen(family: str, size: str, path: str | None) -> str:
    """Directory or hub id: `path` where it is given, else the packaged tiny checkpoint or a released size.

    Raises CheckpointError when the packaged one has not been made, or `path` is no name.
    """
    if path is not None and not path.strip():  # A shell variable that is not set.
        raise CheckpointError("model.path is empty. Give it a Hugging Face directory or a hub id, or leave it out.")
    if path or size != "tiny":
        return path or released(family, size).hub
    if not (OURS / family / "config.json").is_file():
        raise CheckpointError(
            f"The tiny {family} checkpoint is not packaged yet. Make it with `make base FAMILY={family}`, or set model.path."
        )
    return packaged(family)


def config(path: str) -> PreTrainedConfig:
    """The configuration of a checkpoint (loads no weights)."""
    from transformers import PreTrainedConfig

    return _loaded(lambda where: configured(PreTrainedConfig.get_config_dict(where)[0]), path)


def configured(values: Mapping[str, Any]) -> PreTrainedConfig:
    """The configuration that a config.json of these `values` stands for.

    Where the file does not say whether the head is tied to the embeddings, the language model's part of it decides:
    the default of transformers' InternVL ties them, and the released weights hold a head of their own.
    """
    from transformers import CONFIG_MAPPING

    found = CONFIG_MAPPING[values["model_type"]].from_dict(deepcopy(dict(values)))
    if "tie_word_embeddings" not in values:
        found.tie_word_embeddings = found.get_text_config().tie_word_embeddings
    return found


@lru_cache(maxsize=4)
def tokenizer(path: str) -> Any:
    """The tokenizer of a checkpoint."""
    from transformers import AutoTokenizer

    return _loaded(AutoTokenizer.from_pretrained, path, trust_remote_code=False)


@lru_cache(maxsize=4)
def image_processor(path: str) -> Any:
    """The image processor of a checkpoint, on the PIL backend."""
    from transformers import AutoImageProcessor

    return _loaded(AutoImageProcessor.from_pretrained, path, trust_remote_code=False, backend="pil")


def model(path: str, attention: Attention = "sdpa") -> PreTrainedModel:
    """The model of a checkpoint in float32 on the CPU; of an adapter directory, its base with the adapters merged."""
    import torch
    from transformers import AutoModelForImageTextToText
    from transformers.utils import is_flash_attn_2_available

    from percasym.objectives.onednn import with_onednn

    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise CheckpointError("model.attention=flash_attention_2 needs the flash-attn package and a GPU, which are not here. Use sdpa.")
    if is_adapter(path):
        base = model(_base(path), attention)
        return _loaded(lambda where: merged(base, where), path)
    options = {"trust_remote_code": False, "use_safetensors": True, "dtype": torch.float32, "attn_implementation": attention}
    return with_onednn(_loaded(partial(whole, AutoModelForImageTextToText), path, config=config(path), **options))


def save(trained: PreTrainedModel, source: str, directory: Path) -> None:
    """Write a model that came from `source` beside all else that `source` holds; of one with adapters, these alone, in peft's format."""
    trained.save_pretrained(directory)
    trained.config.save_pretrained(directory)  # Not written with adapters, though tokenizer and readers ask for it.
    tokenizer(source).save_pretrained(directory)
    image_processor(source).save_pretrained(directory)


def _base(path: str) -> str:
    """What the adapters in a directory were trained on."""
    try:
        base = json.loads((Path(path).expanduser() / ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{Path(path) / ADAPTER} does not say which model its adapters were trained on ({error!r}).") from error
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise CheckpointError(f"The adapters in {path} were trained on {base}, which is not there. Bring it back, or correct {ADAPTER}.")
    return str(base)


def _loaded(load: Callable[..., Any], path: str, **options: Any) -> Any:
    local = Path(path)
    if local.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1:
        if not local.expanduser().is_dir():
            raise CheckpointError(f"No checkpoint directory at {path}. Give model.path a Hugging Face directory or a hub id.")
        if not (local.expanduser() / "config.json").is_file():
            raise CheckpointError(f"{path} holds no config.json, so it is not a Hugging Face checkpoint. Check model.path.")
    try:
        return load(str(local.expanduser()) if local.expanduser().is_dir() else path, **options)
    except Exception as error:  # transformers raises many types for one cause: the checkpoint cannot be read.
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"The checkpoint {path} could not be loaded ({type(error).__name__}: {reason}). Check model.path.") from error
