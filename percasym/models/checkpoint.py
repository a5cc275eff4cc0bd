"""Load and save a checkpoint: its configuration, tokenizer, image processor and model.

Tiny and 8B take the same code path. Only safetensors weights, no remote code, and the PIL image backend (torchvision is not needed).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from percasym.config.escaping import shortened
from percasym.config.files import UnfitFileError, read_json
from percasym.models import hub, stored
from percasym.models.adapt import ADAPTER, Attention, is_adapter, load_complete, merge_adapters
from percasym.models.locate import PACKAGED, CheckpointError, adapter_base, directory_of, is_here, model_type, origin
from percasym.models.template import TemplateError
from percasym.models.untrusted import check_bases, check_checkpoint
from percasym.models.untrusted_tokenizer import check_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

PROCESSOR = "processor_config.json"
PROCESSOR_FILES = (PROCESSOR, "tokenizer_config.json")
"""The files that `complete_processor` writes."""
INTERNVL_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
"""Attributes of InternVL's tokenizer, as in tokenizer_config.json of the released checkpoints."""


def silence_transformers() -> None:
    """Turn off transformers' warnings and progress bars, which would break our own."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def config(path: str) -> PreTrainedConfig:
    """The configuration of a checkpoint (loads no weights)."""
    from transformers import PreTrainedConfig

    return loaded(lambda where: config_from_dict(PreTrainedConfig.get_config_dict(where)[0]), origin(path))


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

    def load(where: str, **options: Any) -> Any:
        if not Path(where).is_relative_to(str(PACKAGED)):
            check_tokenizer(Path(where))
        return AutoTokenizer.from_pretrained(where, **options)

    return loaded(load, origin(path), trust_remote_code=False)


@lru_cache(maxsize=4)
def image_processor(path: str) -> Any:
    """The image processor of a checkpoint, on the PIL backend."""
    from transformers import AutoImageProcessor

    return loaded(AutoImageProcessor.from_pretrained, origin(path), trust_remote_code=False, backend="pil")


def model(path: str, attention: Attention = "sdpa") -> PreTrainedModel:
    """The model of a checkpoint in float32 on the CPU; for an adapter directory, its base with the adapters merged."""
    import torch
    from transformers import AutoModelForImageTextToText
    from transformers.utils import is_flash_attn_2_available

    from percasym.objectives.onednn import with_onednn

    if attention == "flash_attention_2" and not is_flash_attn_2_available():
        raise CheckpointError("model.attention=flash_attention_2 needs the flash-attn package and a GPU, which are not here. Use sdpa.")
    if is_adapter(path):
        loaded(lambda where: check_bases(Path(where)), path)
        base = model(adapter_base(path), attention)
        return check_finite(loaded(lambda where: merge_adapters(base, where), path), path)
    options = {"trust_remote_code": False, "use_safetensors": True, "dtype": torch.float32, "attn_implementation": attention}
    found = loaded(partial(load_complete, AutoModelForImageTextToText), path, weights=True, config=config(path), **options)
    return with_onednn(check_finite(found, path))


def skeleton(kind: type[PreTrainedModel], config: PreTrainedConfig, path: str) -> PreTrainedModel:
    """The modules of a model without memory: parameters and buffers on the meta device, in float32; `path` is its `name_or_path`."""
    import torch

    from percasym.objectives.onednn import with_onednn

    with torch.device("meta"):
        made = kind._from_config(config, dtype=torch.float32, attn_implementation=config._attn_implementation)
    made.name_or_path = path
    return with_onednn(made)


def save(trained: PreTrainedModel, source: str, directory: Path, *, images: Mapping[str, Any] | None = None) -> None:
    """Write a trained model with the tokenizer and image processor of `source`; of a model with adapters these only, in peft's format.

    `images` are settings that the image processor was used with in place of its own.
    """
    dtype = stored.stored_dtype(trained, config(source))
    stored.save_as(trained, dtype, directory)
    if is_adapter(directory) and not is_here(source):
        name_base(directory, source)
    trained.config.save_pretrained(directory)  # Not written with adapters, but needed to load tokenizer and image processor.
    stored.record(directory, dtype)
    tokenizer(source).save_pretrained(directory)
    processor = deepcopy(image_processor(source))
    for name, value in (images or {}).items():
        setattr(processor, name, value)
    processor.save_pretrained(directory)
    complete_processor(directory)


def name_base(directory: Path, path: str) -> None:
    """Record the base of adapters by its hub id and revision, as peft does, in place of its directory in the local cache."""
    settings = read_json(directory / ADAPTER)
    settings["base_model_name_or_path"], settings["revision"] = hub.parts(path)
    (directory / ADAPTER).write_text(json.dumps(settings, indent=2, sort_keys=True), encoding="utf-8")


def complete_processor(directory: Path) -> None:
    """Write what transformers' processor of InternVL reads beside the tokenizer, and vLLM with it; other families need nothing.

    Its image tokens are attributes of the tokenizer (`model_specific_special_tokens`), and their number is `image_seq_length`.
    """
    if not lacks_processor(directory):
        return
    sequence = read_json(directory / "config.json")["image_seq_length"]
    processor = {"processor_class": "InternVLProcessor", "image_seq_length": sequence}
    (directory / PROCESSOR).write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")
    file = directory / "tokenizer_config.json"
    settings = read_json(file)
    settings["model_specific_special_tokens"] = settings.get("model_specific_special_tokens", {}) | INTERNVL_TOKENS
    file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def lacks_processor(directory: Path) -> bool:
    """Whether a directory is a checkpoint of InternVL without what its processor reads, as this package wrote them before."""
    try:
        kind = read_json(directory / "config.json").get("model_type")
        settings = read_json(directory / "tokenizer_config.json")
        named = {*settings, *settings.get("model_specific_special_tokens", {})}
    except (OSError, ValueError, AttributeError, TypeError):
        return False
    return kind == "internvl" and not ((directory / PROCESSOR).is_file() and named >= set(INTERNVL_TOKENS))


def check_finite(loaded: PreTrainedModel, path: str) -> PreTrainedModel:
    """The model. Raises CheckpointError for a weight that is no finite number."""
    import torch

    for name, weight in loaded.named_parameters():
        if weight.device.type != "meta" and weight.numel() and not torch.stack(torch.aminmax(weight.detach())).isfinite().all():
            raise CheckpointError(f"The checkpoint {path} has a weight that is no finite number, in {name}. Take an earlier checkpoint.")
    return loaded


def loaded(load: Callable[..., Any], path: str, *, weights: bool = False, **options: Any) -> Any:
    """`load(directory, **options)` for the checked directory of a checkpoint, with every failure as a CheckpointError.

    `load` of a checkpoint on the hub finds its weights only with `weights`.
    """
    try:
        folder = directory_of(path)
        check_checkpoint(folder, weights=weights or is_here(path))
        if (file := folder / "config.json").is_file() and model_type(file) is None:
            raise CheckpointError(f"{file} names no model_type, so it is not that of a Hugging Face checkpoint. Check model.path.")
        if weights and not is_here(path):  # Gigabytes, which are downloaded for what passed only.
            folder = directory_of(path, weights=True)
            check_checkpoint(folder)
        return load(str(folder), **options)
    except CheckpointError:
        raise
    except (UnfitFileError, TemplateError) as error:
        raise CheckpointError(f"{error} Check model.path.") from error
    except Exception as error:  # transformers raises many types for one cause: the checkpoint cannot be read.
        reason = shortened(error)
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "  # Our own say what is missing.
        raise CheckpointError(f"The checkpoint {path} could not be loaded ({kind}{reason}). Check model.path.") from error
