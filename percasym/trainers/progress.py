"""What every training loop shares: where it writes, what a checkpoint keeps of it, and when it must stop."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch

from percasym.balance.base import BalanceState
from percasym.engine.base import Engine
from percasym.paradigm import Training
from percasym.runs.requests import Requests, Stopped
from percasym.trainers.shares import Share

PROGRESS = "progress.json"


class Bar(Protocol):
    """What shows how far training is."""

    def advance(self, step: int, **shown: float) -> None:
        """`step` steps are done; `shown` are the numbers to see now."""
        ...


class Run(Protocol):
    """What training needs of a run directory."""

    @property
    def requests(self) -> Requests:
        """What was asked of this rank from outside."""
        ...

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the numbers of a step."""
        ...

    def progress(self, total: int, title: str, start: int = 0) -> AbstractContextManager[Bar]:
        """Show progress while the block runs."""
        ...

    def checkpoint(self, step: int, save: Callable[[Path], None]) -> object:
        """Let `save` fill the checkpoint of a step."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where training stands between two steps: what a checkpoint keeps besides the engine."""

    step: int
    """Optimizer steps done."""
    balance: BalanceState
    share: Share | None
    """Perception's share at the first step; None before it."""

    def save(self, directory: Path) -> None:
        """Write it as JSON."""
        (directory / PROGRESS).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Progress:
        """Read what `save` wrote."""
        kept = json.loads((directory / PROGRESS).read_text(encoding="utf-8"))
        return cls(step=kept["step"], balance=BalanceState(**kept["balance"]), share=Share(**kept["share"]) if kept["share"] else None)


class TrainingDivergedError(RuntimeError):
    """The loss, or its gradient, is no longer a number."""


def stop_if_diverged(step: int, lr: float, *, loss: float, gradient: float) -> None:
    """Raise TrainingDivergedError unless the loss and the gradient's norm of a step are finite."""
    for what, value in (("loss", loss), ("gradient's norm", gradient)):
        if not math.isfinite(value):
            raise TrainingDivergedError(f"The {what} is {value} at step {step}. Choose a paradigm.lr below {lr}.")


def settle(run: Run, engine: Engine, settings: Training, progress: Progress) -> None:
    """Between two steps: write the checkpoint that is due or was asked for from outside, and stop where that was asked.

    Raises Stopped, on all ranks alike when any of them was asked.
    """
    interrupt, terminate, save = engine.total(torch.tensor(run.requests.take())).tolist()
    if settings.saves_after(progress.step) or interrupt or terminate or save:
        run.checkpoint(progress.step, _saving(engine, progress))
    if interrupt or terminate:
        raise Stopped(signal.SIGTERM if terminate else signal.SIGINT)


def _saving(engine: Engine, progress: Progress) -> Callable[[Path], None]:
    """What fills a checkpoint."""

    def save(directory: Path) -> None:
        engine.save(directory)
        if engine.rank == 0:  # All know the same.
            progress.save(directory)

    return save
