"""Divergence of a training step: detection, the error raised, and the dump that `percasym replay RUN` reads.

In RL also the divergence of the trainer from the sampler, which is a warning.

    diverged/step.json  diverged/batches_rank0.safetensors  diverged/batches_rank1.safetensors ...

The dump holds the micro-batches of the step on each rank and the metrics logged for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from percasym.config.files import UnfitFileError, read_bytes, read_json
from percasym.config.paradigm import Training
from percasym.models.base import Batch
from percasym.runs.base import Run
from percasym.types import UNSUPERVISED, Span

DIRECTORY, METRICS = "diverged", "step.json"
MUST_BE_FINITE = ("loss/total", "loss/policy", "grad/norm")
"""The metrics of a step, of SFT or RL, that must be finite."""
COMMON = ("ids", "mask", "labels")
"""The tensors of every batch; those of its family are stored as `inputs.NAME` and `aligned.NAME`."""
MAX_DUMP_BYTES = 2**34
"""Of the batches of one rank (our choice): 64 pictures of 16 million pixels have 12 GB."""


@dataclass(slots=True)
class MismatchAlarm:
    """Warnings of a KL divergence between sampler and trainer: at the first round at or above the limit, then whenever it has doubled.

    With the same weights on both sides it is rounding. A picture that was lost on the way, or weights that were not refreshed, raise it
    by orders of magnitude while the reward may fall slowly or not at all.
    """

    limit: float
    """In nats per token; 0 never warns."""
    highest: float = 0.0
    """At the last warning."""

    def warning(self, step: int, kl: float) -> str | None:
        """The sentence to print after this round; None where there is nothing new.

        >>> alarm = MismatchAlarm(limit=0.01)
        >>> [alarm.warning(step, kl) is not None for step, kl in ((1, 0.009), (2, 0.02), (3, 0.03), (4, 0.05))]
        [False, True, False, True]
        """
        if not (self.limit and kl >= self.limit and kl >= 2 * self.highest):
            return None
        self.highest = kl
        return (
            f"Warning: at round {step} the trainer's probabilities differ from the sampler's by {kl:.2g} nats per token "
            f"(paradigm.alarm_kl={self.limit:g}). Set paradigm.importance_cap=2, or sample as the trainer computes (rollout=native "
            "rollout.precision=auto); if it stays there, pictures or weights do not reach the sampler."
        )


class TrainingDivergedError(RuntimeError):
    """The loss or its gradient is not finite."""


def diverged(values: Mapping[str, float]) -> bool:
    """Whether the loss or the gradient norm of a step is not finite; such a gradient is not applied."""
    return not all(math.isfinite(values.get(name, 0.0)) for name in MUST_BE_FINITE)


def record_divergence(
    run: Run, rank: int, settings: Training, step: int, values: Mapping[str, float], window: Sequence[Batch]
) -> TrainingDivergedError:
    """Write this rank's part of the dump and return the error to raise."""
    save_batches(run.path, rank, window)
    if rank == 0:
        save_metrics(run.path, step, values)
    name, value = next((name, values[name]) for name in MUST_BE_FINITE if not math.isfinite(values.get(name, 0.0)))
    kept = f"Its batches are in {run.path / DIRECTORY}: see percasym replay {run.path}"
    return TrainingDivergedError(f"{name} is {value} at step {step}. {kept}, or choose a paradigm.lr below {settings.lr}.")


def save_batches(run: Path, rank: int, batches: Iterable[Batch]) -> None:
    """Write the micro-batches of one rank into the run directory."""
    (run / DIRECTORY).mkdir(exist_ok=True)
    tensors = {f"{number}.{name}": value.contiguous().cpu() for number, batch in enumerate(batches) for name, value in _named(batch)}
    save_file(tensors, _file(run, rank))


def save_metrics(run: Path, step: int, values: Mapping[str, float]) -> None:
    """Write the metrics of the step as JSON; values that are not finite as text."""
    metrics = {"step": step} | {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
    (run / DIRECTORY).mkdir(exist_ok=True)
    (run / DIRECTORY / METRICS).write_text(json.dumps(metrics, indent=1, allow_nan=False), encoding="utf-8")


def load_batches(run: Path) -> Sequence[Batch]:
    """The micro-batches of all ranks. Raises FileNotFoundError when there is no dump."""
    files = sorted((run / DIRECTORY).glob("batches_rank*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{run} holds no {DIRECTORY}/: no step of it diverged.")
    return [batch for file in files for batch in _read(file)]


def load_metrics(run: Path) -> dict[str, float | str]:
    """The metrics of the step, as `save_metrics` wrote them. Raises ValueError where the step or its weight is missing."""
    file = run / DIRECTORY / METRICS
    values = read_json(file, links=False)
    if not isinstance(values, dict):
        raise UnfitFileError(f"{file} is no record of a step.")
    for name, kind in (("step", int), ("balance/weight", int | float)):
        value = values.get(name)
        if not isinstance(value, kind) or isinstance(value, bool) or not 0 <= value < 2**53:
            raise UnfitFileError(f"{file} has no {name} that is a number of a step ({value!r:.80}).")
    return values


def _read(file: Path) -> list[Batch]:
    try:
        return _batches(load(read_bytes(file, max_bytes=MAX_DUMP_BYTES, links=False)))
    except UnfitFileError:
        raise
    except (SafetensorError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UnfitFileError(f"{file} holds no batches of a step ({reason}).") from error


def _named(batch: Batch) -> Iterable[tuple[str, Tensor]]:
    yield from ((name, getattr(batch, name)) for name in COMMON)
    yield from ((f"inputs.{name}", value) for name, value in batch.inputs.items())
    yield from ((f"aligned.{name}", value) for name, value in batch.aligned.items())


def _batches(tensors: Mapping[str, Tensor]) -> list[Batch]:
    parts: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        parts.setdefault(int(number), {})[name] = value
    for part in parts.values():
        ids, mask, labels = (part[name] for name in COMMON)
        whole = all(tensor.dtype == torch.int64 for tensor in (ids, mask, labels))
        if not (whole and ids.shape == mask.shape == labels.shape and ids.ndim == 2 and ids.numel()):
            raise ValueError("ids, mask and labels are no whole numbers of one shape")
        if bool((ids < 0).any()) or not torch.isin(labels, torch.tensor([UNSUPERVISED, *Span])).all():
            raise ValueError("ids are negative, or labels are no spans")
    return [
        Batch(
            ids=part["ids"],
            mask=part["mask"],
            labels=part["labels"],
            inputs={name.removeprefix("inputs."): value for name, value in part.items() if name.startswith("inputs.")},
            aligned={name.removeprefix("aligned."): value for name, value in part.items() if name.startswith("aligned.")},
        )
        for _, part in sorted(parts.items())
    ]


def _file(run: Path, rank: int) -> Path:
    return run / DIRECTORY / f"batches_rank{rank}.safetensors"
