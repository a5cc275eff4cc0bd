"""Mirrors of a run in other places; the run directory stays the record.

`metrics.jsonl` is always written; a tracker shows the same numbers elsewhere while they come. This is
the only file that imports wandb, and only when a run with `tracker=wandb` starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from percasym.runs.mirror import WandbMirror


class Mirror(Protocol):
    """One run as a tracker shows it."""

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Show the numbers of a step: the next line of metrics.jsonl."""
        ...

    def samples(self, split: str, step: int, records: Iterable[Mapping[str, Any]]) -> None:
        """Show some of the samples of a step, before its numbers."""
        ...

    def finish(self, summary: Mapping[str, Any], *, failed: bool) -> None:
        """Close the run; called exactly once, whatever became of it."""
        ...


class Tracker(Protocol):
    """How runs are mirrored: a frozen dataclass whose fields are `tracker.*`."""

    def start(self, *, directory: Path, identity: str, config: Mapping[str, Any], num_lines: int) -> Mirror:
        """Open the mirror of a run that has said `num_lines` lines; the same identity continues the same mirror after an interruption.

        Raises ValueError when that cannot be done.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NoTracker:
    """Keep the run directory only (`tracker=none`)."""

    def start(self, *, directory: Path, identity: str, config: Mapping[str, Any], num_lines: int) -> NoTracker:
        """This object, which forgets everything."""
        return self

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Nothing."""

    def samples(self, split: str, step: int, records: Iterable[Mapping[str, Any]]) -> None:
        """Nothing."""

    def finish(self, summary: Mapping[str, Any], *, failed: bool) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WandbTracker:
    """Mirror every run to Weights & Biases (`tracker=wandb`); one W&B run for each run directory, in the group of its study."""

    project: str = "percasym"
    """Project of W&B."""
    entity: str | None = None
    """User or team of W&B; null is the default of the account."""
    mode: Literal["auto", "online", "offline"] = "auto"
    """`auto` is online when a key is at hand (WANDB_API_KEY, or a login in ~/.netrc) and offline otherwise."""
    tags: tuple[str, ...] = ()
    """Beside those of task, model and balance."""

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "online", "offline"):
            raise ValueError(f"tracker.mode must be auto, online or offline, got {self.mode!r}.")
        if find_spec("wandb") is None:
            raise ValueError("tracker=wandb needs the wandb package. Run `pip install wandb`, or choose tracker=none.")

    def start(self, *, directory: Path, identity: str, config: Mapping[str, Any], num_lines: int) -> WandbMirror:
        """Open a W&B run whose files lie in `directory`/wandb, and bring it up to date.

        Offline, W&B cannot continue an earlier session, so each one holds the whole run. Online it cannot take rows back: those
        that a resumed run repeats stay as they were said first.
        """
        import wandb

        mode = self._mode(wandb)
        try:
            run = wandb.init(
                project=self.project, entity=self.entity, id=identity, resume="allow" if mode == "online" else None,
                group=config.get("study"), job_type=word(config, "paradigm"), name="/".join(directory.absolute().parts[-2:]),
                tags=[tag for tag in (word(config, "task"), word(config, "model"), word(config, "balance"), *self.tags) if tag],
                config=dict(config), dir=directory.absolute(), mode=mode,
                settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
            )  # fmt: skip
        except wandb.Error as error:
            raise ValueError(
                f"W&B could not open the run ({' '.join(str(error).split())}). Check key and network, or set tracker.mode=offline."
            ) from error
        mirror = WandbMirror(wandb, run, num_lines)
        mirror.catch_up(directory)
        mirror.supersede(directory)
        return mirror

    def _mode(self, wandb: Any) -> Any:
        if self.mode != "auto":
            return self.mode
        return os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False, verify=False) else "offline")


def word(config: Mapping[str, Any], group: str) -> str | None:
    """What was chosen in a group, by the module of its class, or by the class of a module that holds several.

    >>> word({"task": {"_target_": "percasym.tasks.sudoku.task.Sudoku"}}, "task")
    'sudoku'
    >>> word({"paradigm": {"_target_": "percasym.config.paradigm.Rl"}}, "paradigm")
    'rl'
    """
    *path, name = str((config.get(group) or {}).get("_target_", "")).split(".")
    modules = [module for module in path if module != "task"]
    if not modules:
        return None
    return name.lower() if modules[-1] == group else modules[-1]
