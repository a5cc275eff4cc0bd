"""A step that diverged, once more: its batches before the weights of the last checkpoint, without an update.

    percasym replay multirun/main/sudoku-qwen3vl-sft-none/seed0

The weights are those of the last checkpoint, some steps before the one that diverged: what is finite here became worse on
the way, and what is not lies in the batch or in that checkpoint. Rollouts of RL are read as demonstrations: their likelihood
is told, without advantages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from percasym.balance.base import Gramian
from percasym.config.settings import Settings, TorchSettings
from percasym.engine.checkpoint import load_weights
from percasym.engine.engine import SpanEngine
from percasym.engine.torch import torch_engine
from percasym.models.base import Batch
from percasym.objectives.coefficients import span_counts
from percasym.runs.checkpoint import latest_checkpoint
from percasym.training.divergence import kept_batches, kept_facts
from percasym.training.sft import backward, means
from percasym.types import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What the batches of a step give at an earlier step's weights."""

    step: int
    """The step that diverged."""
    at: int
    """Finished steps of the weights; 0 is before training."""
    weight: float
    """Of perception, as it was at the step."""
    losses: tuple[float, float]
    """(L_p, L_r); nan for a span without tokens."""
    gramian: Gramian
    wrong: Sequence[str]
    """A sentence for each row with a loss that is not finite."""

    @property
    def loss(self) -> float:
        """w L_p + (1 - w) L_r."""
        return sum(w * loss for w, loss in zip((self.weight, 1 - self.weight), self.losses, strict=True) if w)

    @property
    def grad_norm(self) -> float:
        """|w g_p + (1 - w) g_r|."""
        w, v, own = self.weight, 1 - self.weight, self.gramian
        return math.sqrt(max(0.0, w * w * own.perception + 2 * w * v * own.cross + v * v * own.reasoning))

    def lines(self) -> Iterator[str]:
        """For the screen."""
        seen, thought = self.gramian.norms
        yield f"Step {self.step} diverged; its batches with the weights after step {self.at}:"
        yield f"  loss {self.loss:.6g} (perception {self.losses[0]:.6g}, reasoning {self.losses[1]:.6g}), weight {self.weight:.6g}"
        yield f"  gradient {self.grad_norm:.6g} (perception {seen:.6g}, reasoning {thought:.6g})"
        yield from (f"  {sentence}" for sentence in self.wrong or ("Every token's loss is finite.",))


def replay(settings: Settings, device: torch.device) -> Replay:
    """Put the batches that a run left in diverged/ before its last checkpoint, or the model that it started from.

    Raises FileNotFoundError when nothing of it diverged.
    """
    batches, facts = kept_batches(settings.path), kept_facts(settings.path)
    engine = torch_engine(settings.family.load(), settings=TorchSettings(), paradigm=settings.paradigm, device=device)
    found = latest_checkpoint(settings.path / "checkpoints")
    if found:
        load_weights(found[1], engine.model)
    seen, thought = span_counts(batch.labels for batch in batches).tolist()
    wrong = list(_wrong(engine, batches))
    backward(engine, [batch.until(Span.perception) for batch in batches], {Span.perception: 1.0}, (seen, thought))
    engine.keep_gradient(Span.perception)
    sums = backward(engine, batches, {Span.reasoning: 1.0}, (seen, thought))
    engine.keep_gradient(Span.reasoning)
    return Replay(
        step=int(facts["step"]),
        at=found[0] if found else 0,
        weight=float(facts["balance/weight"]),
        losses=means(sums, (seen, thought)),
        gramian=engine.gramian(),
        wrong=wrong,
    )


@torch.no_grad()
def _wrong(engine: SpanEngine, batches: Sequence[Batch]) -> Iterator[str]:
    for number, batch in enumerate(batches):
        finite = engine.nll(batch).isfinite().all(1).tolist()
        yield from (f"Row {row} of batch {number} has a loss that is not finite." for row, good in enumerate(finite) if not good)
