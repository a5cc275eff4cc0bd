"""What every training loop shares: where it writes, what a checkpoint keeps of it, and when it must stop."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from percasym.balance.base import BalanceState
from percasym.config.paradigm import Training
from percasym.engine.base import Engine
from percasym.models.base import Batch
from percasym.runs.base import Run
from percasym.runs.requests import Stopped
from percasym.training.divergence import PLACE, keep_batches, keep_facts
from percasym.training.shares import Share

PROGRESS = "progress.json"
LOSSES = ("loss/total", "loss/policy", "grad/norm")
"""The numbers of a step, of SFT or RL, that must be finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
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
    def load(cls, directory: Path) -> TrainingState:
        """Read what `save` wrote."""
        kept = json.loads((directory / PROGRESS).read_text(encoding="utf-8"))
        return cls(step=kept["step"], balance=BalanceState(**kept["balance"]), share=Share(**kept["share"]) if kept["share"] else None)


class TrainingDivergedError(RuntimeError):
    """The loss, or its gradient, is no longer a number."""


def diverged(values: Mapping[str, float]) -> bool:
    """Is the loss, or the gradient's norm, among the numbers of a step not finite? Such a gradient was not applied."""
    return not all(math.isfinite(values.get(name, 0.0)) for name in LOSSES)


def divergence(
    run: Run, engine: Engine, settings: Training, step: int, values: Mapping[str, float], window: Sequence[Batch]
) -> TrainingDivergedError:
    """What to raise of a step that diverged, once what this rank learned from in it is kept."""
    keep_batches(run.path, engine.rank, window)
    if engine.rank == 0:
        keep_facts(run.path, step, values)
    what, value = next((name, values[name]) for name in LOSSES if not math.isfinite(values.get(name, 0.0)))
    kept = f"Its batches are in {run.path / PLACE}: see percasym replay {run.path}"
    return TrainingDivergedError(f"{what} is {value} at step {step}. {kept}, or choose a paradigm.lr below {settings.lr}.")


def settle(run: Run, engine: Engine, settings: Training, progress: TrainingState) -> None:
    """Between two steps: write the checkpoint that is due or was asked for from outside, and stop where that was asked.

    Raises Stopped, on all ranks alike when any of them was asked.
    """
    interrupt, terminate, save = engine.all_reduce_sum(torch.tensor(run.requests.take())).tolist()
    if settings.saves_after(progress.step) or interrupt or terminate or save:
        run.checkpoint(progress.step, _saving(engine, progress))
    if interrupt or terminate:
        raise Stopped(signal.SIGTERM if terminate else signal.SIGINT)


def _saving(engine: Engine, progress: TrainingState) -> Callable[[Path], None]:
    """What fills a checkpoint."""

    def save(directory: Path) -> None:
        engine.save(directory)
        if engine.rank == 0:  # All know the same.
            progress.save(directory)

    return save
