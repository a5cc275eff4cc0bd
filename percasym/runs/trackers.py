"""Mirrors of a run in other places; the run directory stays the record.

`metrics.jsonl` is always written; a tracker shows the same numbers elsewhere while they come. This is
the only file that imports wandb, and only when a run with `tracker=wandb` starts.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol


class Mirror(Protocol):
    """One run as a tracker shows it."""

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Show the numbers of a step."""
        ...

    def finish(self, summary: Mapping[str, Any], *, failed: bool) -> None:
        """Close the run; called exactly once, whatever became of it."""
        ...


class Tracker(Protocol):
    """How runs are mirrored: a frozen dataclass whose fields are `tracker.*`."""

    def start(self, *, directory: Path, name: str, identity: str, config: Mapping[str, Any]) -> Mirror:
        """Open the mirror of a run; the same identity continues the same mirror after an interruption."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NoTracker:
    """Keep the run directory only (`tracker=none`)."""

    def start(self, *, directory: Path, name: str, identity: str, config: Mapping[str, Any]) -> NoTracker:
        """This object, which forgets everything."""
        return self

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Nothing."""

    def finish(self, summary: Mapping[str, Any], *, failed: bool) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WandbTracker:
    """Mirror every run to Weights & Biases (`tracker=wandb`); one W&B run for each run directory."""

    project: str = "percasym"
    entity: str | None = None
    mode: Literal["auto", "online", "offline"] = "auto"
    """`auto` is online when a key is at hand (WANDB_API_KEY, or a login in ~/.netrc) and offline otherwise."""
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.mode not in ("auto", "online", "offline"):
            raise ValueError(f"tracker.mode must be auto, online or offline, got {self.mode!r}.")
        if find_spec("wandb") is None:
            raise ValueError("tracker=wandb needs the wandb package. Run `pip install wandb`, or choose tracker=none.")

    def start(self, *, directory: Path, name: str, identity: str, config: Mapping[str, Any]) -> WandbMirror:
        """Open a W&B run whose files lie in `directory`/wandb."""
        import wandb

        run = wandb.init(
            project=self.project, entity=self.entity, name=name, id=identity, resume="allow", dir=directory, tags=list(self.tags),
            config=dict(config), mode=self._mode(wandb), settings=wandb.Settings(silent=True, disable_git=True, save_code=False),
        )  # fmt: skip
        run.define_metric("step")
        run.define_metric("*", step_metric="step")  # W&B's own counter refuses to step back when a run resumes.
        return WandbMirror(run)

    def _mode(self, wandb: Any) -> Any:
        if self.mode != "auto":
            return self.mode
        return os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False, verify=False) else "offline")


class WandbMirror:
    """An open W&B run."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Send the numbers of a step; what was not finite is left out."""
        self._run.log({"step": step} | {name: value for name, value in values.items() if value is not None})

    def finish(self, summary: Mapping[str, Any], *, failed: bool) -> None:
        """Send the summary and close the run."""
        self._run.summary.update(dict(summary))
        self._run.finish(exit_code=int(failed))
