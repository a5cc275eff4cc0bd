"""Whether two openings of a directory mean the same run, and what else may lie there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from percasym.config.plugins import GROUPS, trust, updated
from percasym.config.schema import read

OWNED = (
    "config.yaml", "meta.json", "metrics.jsonl", "summary.json", "curves.png", "samples", "checkpoints", "final", "diverged", "failure.log",
)  # fmt: skip
"""All that a run writes, and so all that overwriting it deletes."""

KEPT_APART = ("run", "tracker", "launch.rendezvous")
"""Sections and keys of the configuration that say how a run is kept or started, not what it computes."""

ABSENT = object()


class RunConflict(ValueError):  # noqa: N818, a conflict is what it is
    """The directory holds something that this run may not touch."""


def first_difference(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first key whose value differs between two configurations, as a sentence; None when they agree.

    >>> first_difference({"model": {"lr": 1e-05}}, {"model": {"lr": 2e-05}})
    'model.lr=1e-05, this one asks for model.lr=2e-05'
    """
    old, new = dict(_leaves(held)), dict(_leaves(wanted))
    for key in dict.fromkeys((*new, *old)):
        before, after = old.get(key, ABSENT), new.get(key, ABSENT)
        if before == after or any(f"{key}.".startswith(f"{apart}.") for apart in KEPT_APART):
            continue
        there = f"no {key}" if before is ABSENT else f"{key}={_shown(before)}"
        here = f"has no {key}" if after is ABSENT else f"asks for {key}={_shown(after)}"
        return f"{there}, this one {here}"
    return None


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def held_config(path: Path) -> dict[str, Any] | None:
    """The configuration of the run at `path`; None when the path is free.

    Raises RunConflict when something lies there that is not a run.
    """
    if path.exists() and not path.is_dir():
        raise RunConflict(f"{path} is a file, not a run directory. Choose another study.")
    found = [name for name in OWNED if (path / name).exists() or (path / name).is_symlink()]
    for entry in (path / name for name in found):
        for item in (entry, *(entry.iterdir() if entry.is_dir() and not entry.is_symlink() else ())):
            if item.is_symlink():  # To write through it, or to delete what it names, would reach out of the run.
                raise RunConflict(f"{item} is a symbolic link, and a run holds files of its own only. Put what it links to in its place.")
    if not found or found == ["meta.json"]:  # A run that was stopped while it was being opened has computed nothing.
        return None
    if {"config.yaml", "meta.json"} - set(found):
        raise RunConflict(f"{path} holds {found[0]} but no run (config.yaml and meta.json). Choose another study, or clear it away.")
    try:
        config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        config = None
    if not isinstance(config, dict):
        raise RunConflict(f"{path / 'config.yaml'} cannot be read as a configuration. Restore it, or clear the run away.")
    return config


def held_meta(path: Path) -> dict[str, Any]:
    """What the run at `path` says of itself. Raises RunConflict when it cannot be read."""
    try:
        meta = dict(json.loads((path / "meta.json").read_text(encoding="utf-8")))
        known = {name: read(meta[name], hint, name) for name, hint in (("id", str), ("status", str), ("seconds", float))}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise RunConflict(f"{path / 'meta.json'} cannot be read ({error}). Restore it, or clear the run away.") from error
    return meta | known


def is_same_run(path: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether the run at `path` is the one of the configuration `wanted`; False when the path is free.

    Raises RunConflict when it is another one.
    """
    held = held_config(path)
    if held is None:
        return False
    trusted = trust(wanted.get("plugins", ()))
    held = {key: updated(key, value, trusted) if key in GROUPS else value for key, value in held.items()}
    if (difference := first_difference(held, wanted)) is not None:
        raise RunConflict(f"{path} holds a run with {difference}. Choose another study, or run.overwrite=true.")
    return True


def is_done(path: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether the run of the configuration `wanted` is at `path` and finished. Raises RunConflict when it is another one."""
    return is_same_run(path, wanted) and held_meta(path)["status"] == "done"


def delete_run(path: Path) -> None:
    """Delete what a run wrote at `path`, the sessions of its tracker included, and nothing else that lies there."""
    identity = held_meta(path)["id"]
    for session in path.glob(f"wandb/*run-*-{identity}"):
        shutil.rmtree(session)
    for name in OWNED:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink(missing_ok=True)
