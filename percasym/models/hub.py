"""Checkpoints on the Hugging Face hub: whether one can be had, from the local cache or from a hub that answers, and its local files.

Without the first question the library retries each of a dozen files for half a minute on a machine without a network. Files are read from
the snapshot of one commit, so that configuration, tokenizer and weights belong together and are checked like those of any directory.
A hub id pinned by `model.revision` is written `id@revision` where a checkpoint is named by one text; no id contains an @.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from percasym.config.network import unreachable as unreachable

TEXTS = ("*.json", "*.jinja", "merges.txt")
"""All files of a checkpoint that are read, but its weights."""
WEIGHTS = "*.safetensors"


def pinned(repository: str, revision: str | None) -> str:
    """A hub id and its revision as one text.

    >>> pinned("Qwen/Qwen3-VL-2B-Instruct", "main"), pinned("Qwen/Qwen3-VL-2B-Instruct", None)
    ('Qwen/Qwen3-VL-2B-Instruct@main', 'Qwen/Qwen3-VL-2B-Instruct')
    """
    return repository if revision is None else f"{repository}@{revision}"


def parts(path: str) -> tuple[str, str | None]:
    """Hub id and revision of a text that `pinned` made.

    >>> parts("Qwen/Qwen3-VL-2B-Instruct@main"), parts("Qwen/Qwen3-VL-2B-Instruct")
    (('Qwen/Qwen3-VL-2B-Instruct', 'main'), ('Qwen/Qwen3-VL-2B-Instruct', None))
    """
    repository, _, revision = path.partition("@")
    return repository, revision or None


@lru_cache(maxsize=16)
def snapshot(path: str, *, weights: bool) -> Path:
    """The directory of a checkpoint's files in the local cache, named after their commit; what is missing is downloaded first.

    Without `weights`, these may be missing.
    """
    from huggingface_hub import snapshot_download

    repository, revision = parts(path)
    if weights:  # Of the commit whose configuration was read, though the branch may have moved on since.
        revision = snapshot(path, weights=False).name
    return Path(snapshot_download(repository, revision=revision, allow_patterns=[*TEXTS, *[WEIGHTS] * weights]))


def cached(path: str) -> bool:
    """Whether the configuration of a hub id, at its revision, lies in the local cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    repository, revision = parts(path)
    try:
        return isinstance(try_to_load_from_cache(repository, "config.json", revision=revision), str)
    except HFValidationError:
        return False
