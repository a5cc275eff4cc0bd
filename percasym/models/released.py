"""Released checkpoints: what their authors published of each, as small JSON files.

A test builds every one of them on the meta device and counts its parameters; nothing here loads torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

OURS = files("percasym") / "models" / "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """One released checkpoint (`released/<family>/<size>.json`)."""

    hub: str
    """Its id on the Hugging Face hub."""
    parameters: str
    """How many there are, as published: all digits (2127532032), or rounded to billions (8.5B)."""
    source: Mapping[str, str]
    """Where `config` and `parameters` are published, and where the values were read."""
    config: Mapping[str, Any]
    """What its config.json says of the architecture."""


def sizes(family: str) -> tuple[str, ...]:
    """The released sizes of a family, smallest first.

    >>> sizes("qwen3vl")
    ('2B', '4B', '8B', '30B-A3B', '32B')
    """
    names = [file.name.removesuffix(".json") for file in (OURS / family).iterdir() if file.name.endswith(".json")]
    return tuple(sorted(names, key=lambda name: int(name.partition("B")[0])))


@lru_cache
def released(family: str, size: str) -> Released:
    """What is recorded of one size."""
    return Released(**json.loads((OURS / family / f"{size}.json").read_text(encoding="utf-8")))


def chat_template(family: str) -> str:
    """The chat template that every released size of a family shares, to the last byte."""
    return (OURS / family / "chat_template.jinja").read_text(encoding="utf-8")
