"""Recompute a step that diverged: its batches with the weights of the last checkpoint, without an update.

    percasym replay multirun/main/sudoku-qwen3vl-sft-none/seed0

The last checkpoint lies some steps before the one that diverged. Where loss and gradient are finite here, the weights got worse in
between; where they are not, the cause is the batch or that checkpoint. Rollouts of RL are treated as demonstrations: their
likelihood is reported, without advantages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from percasym.balance.base import Gramian, SpanStats
from percasym.config.schema import ConfigError
from percasym.config.settings import Settings, TorchSettings
from percasym.engine.checkpoint import load_weights
from percasym.engine.engine import SpanEngine
from percasym.engine.torch import torch_engine
from percasym.models.base import Batch
from percasym.objectives.coefficients import span_counts
from percasym.runs.checkpoint import latest_checkpoint
from percasym.training.divergence import DIRECTORY, load_batches, load_metrics
from percasym.training.span_gradients import measure_spans


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Losses and gradients of the batches of a step at an earlier step's weights."""

    step: int
    """The step that diverged."""
    at: int
    """Finished steps of the weights; 0 is before training."""
    weight: float
    """Weight of perception at the step."""
    losses: tuple[float, float]
    """(L_p, L_r); nan for a span without tokens."""
    gramian: Gramian
    not_finite: Sequence[str]
    """A sentence for each row with a loss that is not finite."""

    @property
    def loss(self) -> float:
        """w L_p + (1 - w) L_r."""
        return sum(w * loss for w, loss in zip((self.weight, 1 - self.weight), self.losses, strict=True) if w)

    @property
    def grad_norm(self) -> float:
        """|w g_p + (1 - w) g_r|."""
        w, v, gramian = self.weight, 1 - self.weight, self.gramian
        return math.sqrt(max(0.0, w * w * gramian.perception + 2 * w * v * gramian.cross + v * v * gramian.reasoning))

    def lines(self) -> Iterator[str]:
        """The result as lines of text."""
        perception, reasoning = self.gramian.norms
        yield f"Step {self.step} diverged; its batches with the weights after step {self.at}:"
        yield f"  loss {self.loss:.6g} (perception {self.losses[0]:.6g}, reasoning {self.losses[1]:.6g}), weight {self.weight:.6g}"
        yield f"  gradient {self.grad_norm:.6g} (perception {perception:.6g}, reasoning {reasoning:.6g})"
        yield from (f"  {sentence}" for sentence in self.not_finite or ("Every token's loss is finite.",))


def replay(settings: Settings, device: torch.device) -> Replay:
    """Evaluate the batches in diverged/ of a run at its last checkpoint, or at the model that it started from.

    Raises FileNotFoundError when the run did not diverge.
    """
    batches, facts = load_batches(settings.path), load_metrics(settings.path)
    engine = torch_engine(settings.family.load(), settings=TorchSettings(), paradigm=settings.paradigm, device=device)
    latest = latest_checkpoint(settings.path / "checkpoints")
    if latest:
        load_weights(latest[1], engine.model)
    counts: tuple[int, int] = tuple(span_counts(batch.labels for batch in batches).tolist())
    step = int(facts["step"])
    try:
        not_finite = list(_not_finite(engine, batches))
        stats = measure_spans(engine, batches, SpanStats(step=step - 1, num_steps=settings.paradigm.steps, counts=counts))
    except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:  # Tokens or pictures of another model.
        reason = " ".join(str(error).split())[:150]
        raise ConfigError(f"The batches in {settings.path / DIRECTORY} do not fit the model of the run ({reason}).") from error
    assert stats.losses is not None
    assert stats.gramian is not None
    return Replay(
        step=step,
        at=latest[0] if latest else 0,
        weight=float(facts["balance/weight"]),
        losses=stats.losses,
        gramian=stats.gramian,
        not_finite=not_finite,
    )


@torch.no_grad()
def _not_finite(engine: SpanEngine, batches: Sequence[Batch]) -> Iterator[str]:
    for number, batch in enumerate(batches):
        finite = engine.nll(batch).isfinite().all(1).tolist()
        yield from (f"Row {row} of batch {number} has a loss that is not finite." for row, is_finite in enumerate(finite) if not is_finite)
