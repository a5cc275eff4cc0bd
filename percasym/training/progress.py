"""What both training loops share: the learning rate, the state that a checkpoint holds, and checkpoints and stops on request."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from percasym.balance.base import BalanceState
from percasym.config.files import read_json, unfit
from percasym.config.paradigm import Training
from percasym.config.schema import ConfigError
from percasym.engine.base import Engine
from percasym.runs.base import Run
from percasym.runs.requests import Stopped
from percasym.training.span_gradients import Share

PROGRESS = "progress.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """The state of a training loop between two steps: what a checkpoint holds besides that of the engine."""

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
        try:
            saved = read_json(directory / PROGRESS, links=False)
            share = Share(**saved["share"]) if saved["share"] else None
            return cls(step=saved["step"], balance=BalanceState(**saved["balance"]), share=share)
        except (ValueError, LookupError, TypeError) as error:
            said = unfit(directory / PROGRESS, "is not as a run writes it", error)
            raise ConfigError(f"{said} Delete {directory}, or restore it.") from error


def learning_rate(settings: Training, step: int) -> float:
    """Learning rate of update number `step` (from 0): linear warm-up, then cosine decay.

    The warm-up does not start at zero (the first update has an effect), and the last update has exactly `final_lr_frac` of the peak.

    >>> settings = Training(steps=5, batch_size=1, micro_batch_size=1, lr=1.0, warmup_frac=0.4, final_lr_frac=0.1)
    >>> [round(learning_rate(settings, step), 3) for step in range(5)]
    [0.5, 1.0, 0.775, 0.325, 0.1]
    """
    warmup = round(settings.warmup_frac * settings.steps)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    done = (step + 1 - warmup) / (settings.steps - warmup)
    low = settings.final_lr_frac
    return settings.lr * (low + (1 - low) * (1 + math.cos(math.pi * done)) / 2)


def save_or_stop(run: Run, engine: Engine, settings: Training, state: TrainingState) -> None:
    """Between two steps: write a checkpoint that is due or was requested by a signal, and stop where that was requested.

    Raises Stopped on all ranks when any of them received SIGINT or SIGTERM.
    """
    interrupt, terminate, save = engine.all_reduce_sum(torch.tensor(run.requests.take())).tolist()
    if settings.saves_after(state.step) or interrupt or terminate or save:
        run.checkpoint(state.step, _writer(engine, state))
    if interrupt or terminate:
        run.settle()
        raise Stopped(signal.SIGTERM if terminate else signal.SIGINT)


def _writer(engine: Engine, state: TrainingState) -> Callable[[Path], None]:
    """Writes a checkpoint into the directory that it is called with."""

    def write(directory: Path) -> None:
        engine.save(directory)
        if engine.rank == 0:  # The state is the same on all ranks.
            state.save(directory)

    return write
