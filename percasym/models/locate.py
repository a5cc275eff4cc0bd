"""Locate a checkpoint: the packaged tiny one, a released size, a local Hugging Face directory or a hub id.

Each is named by one text, a path or a hub id with its revision (`model.path`). What is recorded of each released size
(`released/<family>/<size>.json`) can be read without torch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from percasym.config.files import UnfitFileError, home, opened, read_json
from percasym.models import hub
from percasym.models.adapt import ADAPTER, is_adapter

PACKAGED = files("percasym") / "models"
PACKAGED_SIZES = ("tiny", "tiny-graphs")
"""Checkpoints that travel with the package (percasym/app/pretrain.py)."""
RELEASED = files("percasym") / "models" / "released"
FAMILY_OF = {"qwen3_vl": "qwen3vl", "qwen3_vl_moe": "qwen3vl", "internvl": "internvl35"}
"""`model_type` of a config.json -> the option of the group `model`."""
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


def packaged(family: str, size: str = "tiny") -> str:
    """Directory of a packaged checkpoint."""
    return str(PACKAGED / size / family)


def resolve(family: str, size: str, path: str | None, revision: str | None = None) -> str:
    """Directory or hub id: `path` if given, else a packaged checkpoint or a released size; a hub id with its revision, if given.

    Raises CheckpointError when a packaged checkpoint has not been pretrained, `path` is blank, or `revision` is not that of a hub id.
    """
    if path is not None and not path.strip():  # An unset shell variable.
        raise CheckpointError("model.path is empty. Give it a Hugging Face directory or a hub id, or leave it out.")
    check_revision(size, path, revision)
    if path is not None:
        require_family(path, family)
        return hub.pinned(path, revision)
    if size not in PACKAGED_SIZES:
        return hub.pinned(released(family, size).hub, revision)
    if not (Path(packaged(family, size)) / "config.json").is_file():
        raise CheckpointError(
            f"The {size} checkpoint of {family} is not packaged yet. "
            f"Make it with `make base FAMILY={family} SIZE={size}`, or set model.path."
        )
    return packaged(family, size)


def check_revision(size: str, path: str | None, revision: str | None) -> None:
    """Raise CheckpointError for a revision of another form, or of what has none: a directory, or the packaged checkpoint."""
    if path is not None:
        home(Path(path))  # Raises for a user who is not here.
    if path is not None and "@" in path and not is_here(path):
        raise CheckpointError(f"model.path={path} is no directory here and no hub id. Give a revision of a hub id as model.revision.")
    if revision is None:
        return
    if not REVISION.fullmatch(revision):
        raise CheckpointError(f"model.revision must be a branch, a tag or a commit of the hub, got {revision!r}.")
    if path is None and size in PACKAGED_SIZES:
        raise CheckpointError(f"model.revision={revision} is for a hub id, and the packaged checkpoint has no revisions. Leave it out.")
    if path is not None and is_here(path):
        raise CheckpointError(f"model.revision={revision} is for a hub id, and model.path={path} is a directory here. Leave one out.")


def source(path: str) -> dict[str, str | None] | None:
    """Hub id, revision and resolved commit of a checkpoint, for the record of a run; None for a local directory.

    Downloads what is missing but the weights.
    """
    if is_here(path):
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
        if kind := model_type(file):
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


def model_type(file: Path) -> str | None:
    """The type in a config.json; None for a file that cannot be read, or names none."""
    return _model_type(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _model_type(file: Path, changed: int) -> str | None:
    """`model_type` of a file that was last changed at a time."""
    try:
        kind = read_json(file)["model_type"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return kind if isinstance(kind, str) else None


def origin(path: str) -> str:
    """Where configuration, tokenizer and image processor of a checkpoint lie: of adapters that came without a config.json (those of
    peft, ms-swift and LLaMA-Factory), the base model; else `path`.
    """
    return adapter_base(path) if is_adapter(path) and not (Path(path).expanduser() / "config.json").is_file() else path


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
    if is_here(base) or revision is None:
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
    if is_here(path):
        if not (local.expanduser() / "config.json").is_file() and not is_adapter(path):
            raise CheckpointError(f"{path} holds no config.json, so it is not a Hugging Face checkpoint. Check model.path.")
        return local.expanduser()
    if (reason := hub.unreachable()) and not hub.cached(path):
        raise CheckpointError(
            f"{path} is no directory here, is not in the local cache, and the Hugging Face hub cannot be reached ({reason}). "
            "Give model.path a directory, or download the checkpoint where there is a network."
        )
    return hub.snapshot(path, weights=weights)


def is_here(path: str) -> bool:
    """Whether a checkpoint is a directory of this machine."""
    try:
        return Path(path).expanduser().is_dir()
    except RuntimeError:  # The home of a user who is not here.
        return False
