"""Find and load a checkpoint: the packaged tiny one, a released size, a local Hugging Face directory or a hub id.

Tiny and 8B take the same code path. Only safetensors weights, no remote code, and the PIL image backend (torchvision is not needed).
What is recorded of each released size (`released/<family>/<size>.json`) can be read without torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from percasym.config.escaping import shortened
from percasym.config.files import UnfitFileError, home, opened, read_json
from percasym.models import hub, stored
from percasym.models.adapt import ADAPTER, Attention, is_adapter, load_complete, merge_adapters
from percasym.models.template import TemplateError
from percasym.models.untrusted import check_bases, check_checkpoint
from percasym.models.untrusted_tokenizer import check_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

PACKAGED = files("percasym") / "models" / "tiny"
RELEASED = files("percasym") / "models" / "released"
FAMILY_OF = {"qwen3_vl": "qwen3vl", "qwen3_vl_moe": "qwen3vl", "internvl": "internvl35"}
"""`model_type` of a config.json -> the option of the group `model`."""
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
NUM_BLOCKS, BLOCK_BYTES = 256, 2**16
"""Blocks of a weight file that its fingerprint covers: 16 MiB of a file, spread evenly."""
MAX_WEIGHT_BYTES = 2**50
REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}")
"""Form of a branch, tag or commit; it becomes a part of a path in the local cache."""


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


def resolve(family: str, size: str, path: str | None, revision: str | None = None) -> str:
    """Directory or hub id: `path` if given, else the packaged tiny checkpoint or a released size; a hub id with its revision, if given.

    Raises CheckpointError when the tiny checkpoint has not been pretrained, `path` is blank, or `revision` is not that of a hub id.
    """
    if path is not None and not path.strip():  # An unset shell variable.
        raise CheckpointError("model.path is empty. Give it a Hugging Face directory or a hub id, or leave it out.")
    check_revision(size, path, revision)
    if path is not None:
        require_family(path, family)
        return hub.pinned(path, revision)
    if size != "tiny":
        return hub.pinned(released(family, size).hub, revision)
    if not (PACKAGED / family / "config.json").is_file():
        raise CheckpointError(
            f"The tiny {family} checkpoint is not packaged yet. Make it with `make base FAMILY={family}`, or set model.path."
        )
    return packaged(family)


def check_revision(size: str, path: str | None, revision: str | None) -> None:
    """Raise CheckpointError for a revision of another form, or of what has none: a directory, or the packaged checkpoint."""
    if path is not None:
        home(Path(path))  # Raises for a user who is not here.
    if path is not None and "@" in path and not _is_here(path):
        raise CheckpointError(f"model.path={path} is no directory here and no hub id. Give a revision of a hub id as model.revision.")
    if revision is None:
        return
    if not REVISION.fullmatch(revision):
        raise CheckpointError(f"model.revision must be a branch, a tag or a commit of the hub, got {revision!r}.")
    if path is None and size == "tiny":
        raise CheckpointError(f"model.revision={revision} is for a hub id, and the packaged checkpoint has no revisions. Leave it out.")
    if path is not None and _is_here(path):
        raise CheckpointError(f"model.revision={revision} is for a hub id, and model.path={path} is a directory here. Leave one out.")


def source(path: str) -> dict[str, str | None] | None:
    """Hub id, revision and resolved commit of a checkpoint, for the record of a run; None for a local directory.

    Downloads what is missing but the weights.
    """
    if _is_here(path):
        return None
    repository, revision = hub.parts(path)
    return {"path": repository, "revision": revision, "commit": hub.snapshot(path, weights=False).name}


def family_of(path: str) -> str | None:
    """Name of the family (an option of the group `model`) of a checkpoint; None where its config.json is not here or of another type.

    >>> family_of("Qwen/Qwen3-VL-8B-Instruct"), family_of("gpt2")
    ('qwen3vl', None)
    """
    for family in FAMILY_OF.values():
        if path in (released(family, size).hub for size in released_sizes(family)):
            return family
    file = Path(path).expanduser() / "config.json"
    try:
        return FAMILY_OF.get(read_json(file)["model_type"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def fingerprint(path: str) -> str | None:
    """Digest of the weights of a local checkpoint, from `NUM_BLOCKS` blocks of each weight file; None for a hub id.

    A training step changes every block of a trained tensor, so retrained weights at the same path are distinguished at any size.
    """
    folder = Path(path).expanduser()
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return None
    digest = hashlib.blake2b(digest_size=8)
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with opened(file, max_bytes=MAX_WEIGHT_BYTES) as weights:
            for block in range(NUM_BLOCKS):
                weights.seek(size * block // NUM_BLOCKS)
                digest.update(weights.read(BLOCK_BYTES))
    return digest.hexdigest()


def require_family(path: str, family: str) -> None:
    """Raise CheckpointError where a checkpoint is known to be of another family: a local directory, or a released size."""
    folder = Path(path).expanduser()
    if is_adapter(folder) and not (folder / "config.json").is_file():
        folder = Path(adapter_base(path)).expanduser()
    file = folder / "config.json"
    if file.is_file():
        if kind := _model_type(file, file.stat().st_mtime_ns):
            require_type(path, kind, family)
    elif (other := family_of(path)) not in (None, family):
        raise CheckpointError(f"{path} is a checkpoint of model={other}, not of model={family}. Set model={other}.")


def require_type(path: str, kind: str, family: str) -> None:
    """Raise CheckpointError where a `model_type` is not of a family."""
    if (other := FAMILY_OF.get(kind)) == family:
        return
    expected = " or ".join(name for name, owner in FAMILY_OF.items() if owner == family)
    advice = f"Set model={other}." if other else "Set model=auto." if _image_text_to_text(kind) else "Check model.path."
    if kind == "internvl_chat":
        advice = "Give model.path the -HF form of the checkpoint (InternVL3_5-8B-HF)."
    raise CheckpointError(f"{path} is of type {kind}, and model={family} reads {expected}. {advice}")


def _image_text_to_text(kind: str) -> bool:
    """Whether transformers has a vision-language model of a type, which model=auto may read."""
    from transformers.models.auto import modeling_auto

    return kind in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


@lru_cache(maxsize=16)
def _model_type(file: Path, changed: int) -> str | None:
    """The type in a config.json of a time; None for a file that cannot be read, which loading will say."""
    try:
        kind = read_json(file)["model_type"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return kind if isinstance(kind, str) else None


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
    if is_adapter(directory) and not _is_here(source):
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


def origin(path: str) -> str:
    """Where configuration, tokenizer and image processor of a checkpoint lie: of adapters that came without a config.json (those of
    peft, ms-swift and LLaMA-Factory), the base model; else `path`.
    """
    return adapter_base(path) if is_adapter(path) and not (Path(path).expanduser() / "config.json").is_file() else path


def check_finite(loaded: PreTrainedModel, path: str) -> PreTrainedModel:
    """The model. Raises CheckpointError for a weight that is no finite number."""
    import torch

    for name, weight in loaded.named_parameters():
        if weight.device.type != "meta" and weight.numel() and not torch.stack(torch.aminmax(weight.detach())).isfinite().all():
            raise CheckpointError(f"The checkpoint {path} has a weight that is no finite number, in {name}. Take an earlier checkpoint.")
    return loaded


def adapter_base(path: str) -> str:
    """The base model of an adapter directory."""
    try:
        values = read_json(Path(path).expanduser() / ADAPTER)
    except UnfitFileError as error:
        raise CheckpointError(f"{error} Check model.path.") from error
    base = values.get("base_model_name_or_path") if isinstance(values, dict) else None
    if not isinstance(base, str) or not base.strip():
        raise CheckpointError(f"{Path(path) / ADAPTER} does not say which model its adapters were trained on ({base!r:.80}).")
    home(Path(base))
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise CheckpointError(f"The adapters in {path} were trained on {base}, which is not there. Bring it back, or correct {ADAPTER}.")
    revision = values.get("revision")
    if _is_here(base) or revision is None:
        return base
    if not isinstance(revision, str) or not REVISION.fullmatch(revision):
        raise CheckpointError(f"{Path(path) / ADAPTER} names the revision {revision!r:.80}, which is none. Correct it, or take it out.")
    return hub.pinned(base, revision)


def directory_of(path: str, *, weights: bool = False) -> Path:
    """The local directory of a checkpoint; what is missing of one on the hub is downloaded, with or without its weights.

    Raises CheckpointError where there is none.
    """
    local = Path(path)
    if (local.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1) and not local.expanduser().is_dir():
        raise CheckpointError(f"No checkpoint directory at {path}. Give model.path a Hugging Face directory or a hub id.")
    if _is_here(path):
        if not (local.expanduser() / "config.json").is_file() and not is_adapter(path):
            raise CheckpointError(f"{path} holds no config.json, so it is not a Hugging Face checkpoint. Check model.path.")
        return local.expanduser()
    if (reason := hub.unreachable()) and not hub.cached(path):
        raise CheckpointError(
            f"{path} is no directory here, is not in the local cache, and the Hugging Face hub cannot be reached ({reason}). "
            "Give model.path a directory, or download the checkpoint where there is a network."
        )
    return hub.snapshot(path, weights=weights)


def loaded(load: Callable[..., Any], path: str, *, weights: bool = False, **options: Any) -> Any:
    """`load(directory, **options)` for the checked directory of a checkpoint, with every failure as a CheckpointError.

    `load` of a checkpoint on the hub finds its weights only with `weights`.
    """
    try:
        folder = directory_of(path)
        check_checkpoint(folder, weights=weights or _is_here(path))
        if (file := folder / "config.json").is_file() and _model_type(file, file.stat().st_mtime_ns) is None:
            raise CheckpointError(f"{file} names no model_type, so it is not that of a Hugging Face checkpoint. Check model.path.")
        if weights and not _is_here(path):  # Gigabytes, which are downloaded for what passed only.
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


def _is_here(path: str) -> bool:
    try:
        return Path(path).expanduser().is_dir()
    except RuntimeError:  # The home of a user who is not here.
        return False
