"""What lies at a run's path: nothing, the same run (resumable or finished), or something that must not be touched.

`find` is the one call that reads it; its answer is passed on.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from percasym.config.files import read_json, read_yaml, unfit
from percasym.config.plugins import current
from percasym.config.redaction import redacted_values
from percasym.config.schema import ConfigError, read
from percasym.runs.records import document
from percasym.runs.space import RESERVE, write_in_reserve

TENSORBOARD = "tensorboard"
"""Folder of the events of tracker=tensorboard."""
OWNED = (
    "config.yaml", "meta.json", "metrics.jsonl", "summary.json", "curves.png", "samples", "checkpoints", "final", "diverged", "failure.log",
    TENSORBOARD, RESERVE,
)  # fmt: skip
"""All that a run writes, and so all that overwriting it deletes, with SESSIONS."""
SESSIONS = "wandb"
"""Folder of the tracker's sessions, one for each time that the run was opened; overwriting deletes those of the run's id."""
IDENTITY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
"""Form of a run's id: part of a file name and of a W&B address, so it holds no separator, dot or wildcard."""

NOT_COMPARED = ("run", "tracker", "launch")
"""Sections and keys of the configuration that say how a run is kept or started, not what it computes."""

DATA_PATH = "task.path"
"""Where collected data lie: the same rows may be moved, so a run of recorded data is compared by their fingerprint."""

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


def find(
    path: Path,
    wanted: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    fingerprint: Callable[[], str | None] | None = None,
) -> Found:
    """What lies at `path` for the run of the configuration `wanted` (plain data); without `wanted`, any run is accepted.

    `fingerprint` reads the collected data of `wanted`, for a run of such data. Without it, a run whose data lie elsewhere counts as
    resumable, whatever its status: who runs it decides.
    Raises RunConflict when something lies there that is not a run, or cannot be read, or, unless it will be overwritten, another run.
    """
    config = _read_config(path)
    if config is None:
        return Found(status="new")
    if wanted is not None and not overwrite:
        wanted = redacted_values(wanted)  # As config.yaml was written.
        held = current(config, wanted.get("plugins", ()))
        recorded = _data_of(path)
        if (difference := first_difference(held, wanted, skipped=() if recorded is None else (DATA_PATH,))) is not None:
            raise RunConflict(f"{path} holds a run with {difference}. Choose another study, or run.overwrite=true.")
    meta = _read_meta(path)
    status: Literal["new", "resumable", "finished"] = "new" if overwrite else "finished" if meta["status"] == "done" else "resumable"
    if wanted is not None and not overwrite and recorded is not None:
        if fingerprint is None:
            status = "resumable" if first_difference(held, wanted) else status
        elif (now := fingerprint()) != recorded:
            raise RunConflict(
                f"{path} holds a run on other data (fingerprint {recorded}) than {dict(_leaves(wanted)).get(DATA_PATH)} now has ({now}). "
                "Put its data back, choose another study, or run.overwrite=true."
            )
    return Found(status=status, config=config, meta=meta)


def first_difference(held: Mapping[str, Any], wanted: Mapping[str, Any], skipped: Sequence[str] = ()) -> str | None:
    """The first key whose value differs between two configurations, as a sentence; None when they agree. Keys in `skipped` may differ.

    >>> first_difference({"model": {"lr": 1e-05}}, {"model": {"lr": 2e-05}})
    'model.lr=1e-05, this one asks for model.lr=2e-05'
    """
    if (found := differing(held, wanted, skipped)) is None:
        return None
    key, before, after = found
    there = f"no {key}" if before is ABSENT else f"{key}={_shown(before)}"
    here = f"has no {key}" if after is ABSENT else f"asks for {key}={_shown(after)}"
    return f"{there}, this one {here}"


def differing(held: Mapping[str, Any], wanted: Mapping[str, Any], skipped: Sequence[str] = ()) -> tuple[str, object, object] | None:
    """The first key whose value differs between two configurations, and both values (`ABSENT` for none); None when they agree."""
    old, new = dict(_leaves(held)), dict(_leaves(wanted))
    for key in dict.fromkeys((*new, *old)):
        before, after = old.get(key, ABSENT), new.get(key, ABSENT)
        if before != after and not any(f"{key}.".startswith(f"{prefix}.") for prefix in (*NOT_COMPARED, *skipped)):
            return key, before, after
    return None


def delete_run(path: Path, identity: str) -> None:
    """Delete what the run with this id wrote at `path`, the sessions of its tracker included, and nothing else that lies there.

    Raises RunConflict, before anything is deleted, for an id of another form and for whatever is a symbolic link or lies elsewhere.
    """
    check_identity(identity, path)
    names = [path / name for name in OWNED]
    owned = [*names, *path.glob(f"{SESSIONS}/*run-*-{identity}")]
    for entry in (path / SESSIONS, *owned):
        if entry.is_symlink() or not entry.resolve().is_relative_to(path.resolve()):
            raise RunConflict(_linked(entry))
    for entry in owned:
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def check_identity(identity: object, path: Path) -> str:
    """Returns the id of the run at `path`. Raises RunConflict unless it has the form of one."""
    if not isinstance(identity, str) or not IDENTITY.fullmatch(identity):
        raise RunConflict(f"{path} has the id {identity!r:.80}, and an id holds letters, digits, '_' and '-' only. Restore meta.json.")
    return identity


def mark_ended(path: Path, status: Literal["failed", "interrupted"], **more: str) -> bool:
    """Set the status of a run whose own processes could not (they were killed) or knew less; False when there is no run at `path`.

    Changes the status only where it is `running` or `failed`; `done` and `interrupted` stay.
    """
    file = path / "meta.json"
    try:
        meta = read_json(file, links=False) if file.exists() else {}
    except ValueError:  # Not what a run wrote; `find` says so to who opens it next.
        return False
    if not isinstance(meta, dict):
        return False
    if meta.get("status") in ("running", "failed"):
        write_in_reserve(file, document(meta | {"status": status} | more))
    return bool(meta)


def _read_config(path: Path) -> dict[str, Any] | None:
    """config.yaml of the run at `path`; None when the path is free. Raises RunConflict when something lies there that is not a run."""
    if path.exists() and not path.is_dir():
        raise RunConflict(f"{path} is a file, not a run directory. Choose another study.")
    found = [name for name in OWNED if (path / name).exists() or (path / name).is_symlink()]
    inner = (item for name in found if (path / name).is_dir() and not (path / name).is_symlink() for item in (path / name).iterdir())
    for item in (path / SESSIONS, *(path / name for name in found), *inner):
        if item.is_symlink():  # Writing through it, or deleting its target, would reach outside the run.
            raise RunConflict(_linked(item))
    if {*found} <= {"meta.json", RESERVE}:  # A run that was stopped while it was being created has computed nothing.
        return None
    if {"config.yaml", "meta.json"} - set(found):
        raise RunConflict(f"{path} holds {found[0]} but no run (config.yaml and meta.json). Choose another study, or clear it away.")
    try:
        config = read_yaml(path / "config.yaml")
    except ValueError:
        config = None
    if not isinstance(config, dict):
        raise RunConflict(f"{path / 'config.yaml'} cannot be read as a configuration. Restore it, or clear the run away.")
    return config


def _read_meta(path: Path) -> dict[str, Any]:
    """meta.json of the run at `path`. Raises RunConflict when it cannot be read."""
    try:
        meta = dict(read_json(path / "meta.json"))
        checked = {name: read(meta[name], hint, name) for name, hint in (("id", str), ("status", str), ("seconds", float))}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise RunConflict(f"{unfit(path / 'meta.json', 'cannot be read', error)} Restore it, or clear the run away.") from error
    check_identity(checked["id"], path)
    return meta | checked


def _data_of(path: Path) -> str | None:
    """The fingerprint of the collected data that the run at `path` recorded; None for generated samples."""
    data = _read_meta(path).get("data")
    held = data.get("fingerprint") if isinstance(data, Mapping) else None
    return held if isinstance(held, str) else None


def _linked(item: Path) -> str:
    return f"{item} is a symbolic link, and a run holds files of its own only. Put what it links to in its place."


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value: object) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False, default=str)  # A date of a yaml.
