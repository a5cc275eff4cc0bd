"""The plug-ins that the laws are tested on: those of conf/ and of examples/plugin/conf.

PERCASYM_CONF=FOLDER python -m pytest tests/laws       # those of your own package, whose modules lie beside FOLDER
"""

from __future__ import annotations

import os
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from percasym.config.document import plugin_files, target
from percasym.config.schema import build

ROOT = Path(__file__).resolve().parents[2]
OWN = os.environ.get("PERCASYM_CONF")
FOLDERS = [Path(OWN)] if OWN else [ROOT / "conf", ROOT / "examples" / "plugin" / "conf"]


def files(group: str) -> dict[str, Path]:
    """The yaml of each plug-in of a group, by name."""
    return {path.stem: path for folder in FOLDERS for path in plugin_files(folder, group)}


def made(path: Path, **options: Any) -> Any:
    """The plug-in of a yaml with the values that the yaml sets; an interpolation, such as the run's seed, counts as 0."""
    kind, own = read(path)
    return build(kind, deepcopy(own) | options, path.parent.name)


@cache
def read(path: Path) -> tuple[type, dict[str, Any]]:
    """Class and values of a yaml, read once: a law makes each plug-in a hundred times."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    own = {key: 0 if str(value).startswith("${") else value for key, value in values.items() if key not in ("_target_", "defaults")}
    return target(path), own
