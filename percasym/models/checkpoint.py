"""Find and load a checkpoint: the packaged tiny one, a released size, a local Hugging Face directory or a hub id.

Tiny and 8B take the same code path. Only safetensors weights, no remote code, and the PIL image backend (torchvision is not needed).
What is recorded of each released size (`released/<family>/<size>.json`) can be read without torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from percasym.models.adapt import ADAPTER, Attention, is_adapter, load_complete, merge_adapters

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

PACKAGED = files("percasym") / "models" / "tiny"
RELEASED = files("percasym") / "models" / "released"


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded; the message is one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """One released checkpoint, as its authors published it; a test rebuilds each on the meta device and counts its parameters."""

    hub: str
    """Its id on the Hugging Face hub."""
    parameters: str
    """Number of parameters as published: exact (2127532032), or rounded to billions (8.5B)."""
    source: Mapping[str, str]
    """Where `config` and `parameters` are published, and where the values were read."""
    config: Mapping[str, Any]
    """The architecture fields of its config.json."""


def released_sizes(family: str) -> tuple[str, ...]:
    """The released sizes of a family, smallest first.

    >>> released_sizes("qwen3vl")
    ('2B', '4B', '8B', '30B-A3B', '32B')
    """
    names = [file.name.removesuffix(".json") for file in (RELEASED / family).iterdir() if file.name.endswith(".json")]
    return tuple(sorted(names, key=lambda name: int(name.partition("B")[0])))


@lru_cache
def released(family: str, size: str) -> Released:
    """The record of one released size."""
    return Released(**json.loads((RELEASED / family / f"{size}.json").read_text(encoding="utf-8")))


def chat_template(family: str) -> str:
    """The chat template that all released sizes of a family share, byte for byte."""
    return (RELEASED / family / "chat_template.jinja").read_text(encoding="utf-8")


def packaged(family: str) -> str:
    """Directory of the packaged tiny checkpoint."""
    return str(PACKAGED / family)


def resolve(family: str, size: str, path: str | None) -> str:
    """Directory or hub id: `path` if given, else the packaged tiny checkpoint or a released size.

    Raises CheckpointError when the tiny checkpoint has not been pretrained, or `path` is blank.
    """
    if path is not None and not path.strip():  # An unset shell variable.
        raise CheckpointError("model.path is empty. Give it a Hugging Face directory or a hub id, or leave it out.")
    if path or size != "tiny":
        return path or released(family, size).hub
    if not (PACKAGED / family / "config.json").is_file():
        raise CheckpointError(
            f"The tiny {family} checkpoint is not packaged yet. Make it with `make base FAMILY={family}`, or set model.path."
        )
    return packaged(family)


def silence_transformers() -> None:
    """Turn off transformers' warnings and progress bars, which would break our own."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def config(path: str) -> PreTrainedConfig:
    """The configuration of a checkpoint (loads no weights)."""
    from transformers import PreTrainedConfig

    return _loaded(lambda where: config_from_dict(PreTrainedConfig.get_config_dict(where)[0]), path)


def config_from_dict(values: Mapping[str, Any]) -> PreTrainedConfig:
    """The configuration object of a parsed config.json.

    If the file does not set `tie_word_embeddings` at its top level, the text configuration decides: transformers' InternVL ties head and
    embeddings by default, but the released weights contain a separate head.
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
    """The model of a checkpoint in float32 on the CPU; for an adapter directory, its base with the adapters merged."""
    import torch
    from transformers import AutoModelForImageTextToText
    from transformers.utils import is_flash_attn_2_available

    from percasym.objectives.onednn import with_onednn

    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise CheckpointError("model.attention=flash_attention_2 needs the flash-attn package and a GPU, which are not here. Use sdpa.")
    if is_adapter(path):
        base = model(_base(path), attention)
        return _loaded(lambda where: merge_adapters(base, where), path)
    options = {"trust_remote_code": False, "use_safetensors": True, "dtype": torch.float32, "attn_implementation": attention}
    return with_onednn(_loaded(partial(load_complete, AutoModelForImageTextToText), path, config=config(path), **options))


def save(trained: PreTrainedModel, source: str, directory: Path) -> None:
    """Write a trained model with the tokenizer and image processor of `source`; of a model with adapters these only, in peft's format."""
    trained.save_pretrained(directory)
    trained.config.save_pretrained(directory)  # Not written with adapters, but needed to load tokenizer and image processor.
    tokenizer(source).save_pretrained(directory)
    image_processor(source).save_pretrained(directory)


def _base(path: str) -> str:
    """The base model of an adapter directory."""
    try:
        base = json.loads((Path(path).expanduser() / ADAPTER).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{Path(path) / ADAPTER} does not say which model its adapters were trained on ({error!r}).") from error
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise CheckpointError(f"The adapters in {path} were trained on {base}, which is not there. Bring it back, or correct {ADAPTER}.")
    return str(base)


def _loaded(load: Callable[..., Any], path: str, **options: Any) -> Any:
    """`load(path, **options)`, with every failure as a CheckpointError."""
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
