"""What lies at a run's path: nothing, the same run (resumable or finished), or something that must not be touched.

`find` is the one call that reads it; its answer is passed on.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from percasym.config.plugins import GROUPS, trust, updated
from percasym.config.schema import ConfigError, read
from percasym.runs.records import document, write_whole

OWNED = (
    "config.yaml", "meta.json", "metrics.jsonl", "summary.json", "curves.png", "samples", "checkpoints", "final", "diverged", "failure.log",
)  # fmt: skip
"""All that a run writes, and so all that overwriting it deletes."""

NOT_COMPARED = ("run", "tracker", "launch.rendezvous")
"""Sections and keys of the configuration that say how a run is kept or started, not what it computes."""

ABSENT = object()


class RunConflict(ConfigError):  # noqa: N818, named after the state, not the exception
    """The directory holds something that this run must not touch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What lies at a run's path."""

    status: Literal["new", "resumable", "finished"]
    """`new` where nothing is in the way, or only what will be overwritten."""
    config: Mapping[str, Any] | None = None
    """config.yaml of the run that is there, as recorded; None where there is none."""
    meta: Mapping[str, Any] | None = None
    """Its meta.json."""


def find(path: Path, wanted: Mapping[str, Any] | None = None, *, overwrite: bool = False) -> Found:
    """What lies at `path` for the run of the configuration `wanted` (plain data); without `wanted`, any run is accepted.

    Raises RunConflict when something lies there that is not a run, or cannot be read, or, unless it will be overwritten, another run.
    """
    config = _read_config(path)
    if config is None:
        return Found(status="new")
    if wanted is not None and not overwrite:
        trusted = trust(wanted.get("plugins", ()))
        current = {key: updated(key, value, trusted) if key in GROUPS else value for key, value in config.items()}
        if (difference := first_difference(current, wanted)) is not None:
            raise RunConflict(f"{path} holds a run with {difference}. Choose another study, or run.overwrite=true.")
    meta = _read_meta(path)
    status: Literal["new", "resumable", "finished"] = "new" if overwrite else "finished" if meta["status"] == "done" else "resumable"
    return Found(status=status, config=config, meta=meta)


def first_difference(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first key whose value differs between two configurations, as a sentence; None when they agree.

    >>> first_difference({"model": {"lr": 1e-05}}, {"model": {"lr": 2e-05}})
    'model.lr=1e-05, this one asks for model.lr=2e-05'
    """
    old, new = dict(_leaves(held)), dict(_leaves(wanted))
    for key in dict.fromkeys((*new, *old)):
        before, after = old.get(key, ABSENT), new.get(key, ABSENT)
        if before == after or any(f"{key}.".startswith(f"{prefix}.") for prefix in NOT_COMPARED):
            continue
        there = f"no {key}" if before is ABSENT else f"{key}={_shown(before)}"
        here = f"has no {key}" if after is ABSENT else f"asks for {key}={_shown(after)}"
        return f"{there}, this one {here}"
    return None


def delete_run(path: Path, identity: str) -> None:
    """Delete what the run with this id wrote at `path`, the sessions of its tracker included, and nothing else that lies there."""
    for session in path.glob(f"wandb/*run-*-{identity}"):
        shutil.rmtree(session)
    for name in OWNED:
        if (path / name).is_dir():
            shutil.rmtree(path / name)
        else:
            (path / name).unlink(missing_ok=True)


def mark_ended(path: Path, status: Literal["failed", "interrupted"], **more: str) -> bool:
    """Set the status of a run whose own processes could not (they were killed) or knew less; False when there is no run at `path`.

    Changes the status only where it is `running` or `failed`; `done` and `interrupted` stay.
    """
    file = path / "meta.json"
    meta = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if meta.get("status") in ("running", "failed"):
        write_whole(file, document(meta | {"status": status} | more))
    return bool(meta)


def _read_config(path: Path) -> dict[str, Any] | None:
    """config.yaml of the run at `path`; None when the path is free. Raises RunConflict when something lies there that is not a run."""
    if path.exists() and not path.is_dir():
        raise RunConflict(f"{path} is a file, not a run directory. Choose another study.")
    found = [name for name in OWNED if (path / name).exists() or (path / name).is_symlink()]
    for entry in (path / name for name in found):
        for item in (entry, *(entry.iterdir() if entry.is_dir() and not entry.is_symlink() else ())):
            if item.is_symlink():  # Writing through it, or deleting its target, would reach outside the run.
                raise RunConflict(f"{item} is a symbolic link, and a run holds files of its own only. Put what it links to in its place.")
    if not found or found == ["meta.json"]:  # A run that was stopped while it was being created has computed nothing.
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


def _read_meta(path: Path) -> dict[str, Any]:
    """meta.json of the run at `path`. Raises RunConflict when it cannot be read."""
    try:
        meta = dict(json.loads((path / "meta.json").read_text(encoding="utf-8")))
        checked = {name: read(meta[name], hint, name) for name, hint in (("id", str), ("status", str), ("seconds", float))}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise RunConflict(f"{path / 'meta.json'} cannot be read ({error}). Restore it, or clear the run away.") from error
    return meta | checked


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
