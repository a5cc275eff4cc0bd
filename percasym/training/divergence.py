"""What is kept of a step that diverged: its micro-batches on each rank, and what was logged of it.

    diverged/step.json  diverged/batches_rank0.safetensors  diverged/batches_rank1.safetensors ...

`percasym replay RUN` puts them before the last checkpoint again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from percasym.models.base import Batch

PLACE, FACTS = "diverged", "step.json"
OWN = ("ids", "mask", "labels")
"""The tensors of every batch; those of its family are named `inputs.NAME` and `aligned.NAME`."""


def keep_batches(run: Path, rank: int, batches: Iterable[Batch]) -> None:
    """Write the micro-batches of one rank into the run directory."""
    (run / PLACE).mkdir(exist_ok=True)
    tensors = {f"{number}.{name}": value.contiguous().cpu() for number, batch in enumerate(batches) for name, value in _named(batch)}
    save_file(tensors, _file(run, rank))


def keep_facts(run: Path, step: int, values: Mapping[str, float]) -> None:
    """Write what was logged of the step; what is not finite as text."""
    facts = {"step": step} | {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
    (run / PLACE).mkdir(exist_ok=True)
    (run / PLACE / FACTS).write_text(json.dumps(facts, indent=1, allow_nan=False), encoding="utf-8")


def kept_batches(run: Path) -> Sequence[Batch]:
    """The micro-batches of all ranks. Raises FileNotFoundError when none are kept."""
    files = sorted((run / PLACE).glob("batches_rank*.safetensors"))
    if not files:
        raise FileNotFoundError(f"{run} holds no {PLACE}/: no step of it diverged.")
    return [batch for file in files for batch in _batches(load_file(file))]


def kept_facts(run: Path) -> dict[str, float | str]:
    """What was logged of the step."""
    return dict(json.loads((run / PLACE / FACTS).read_text(encoding="utf-8")))


def _named(batch: Batch) -> Iterable[tuple[str, Tensor]]:
    yield from ((name, getattr(batch, name)) for name in OWN)
    yield from ((f"inputs.{name}", value) for name, value in batch.inputs.items())
    yield from ((f"aligned.{name}", value) for name, value in batch.aligned.items())


def _batches(tensors: Mapping[str, Tensor]) -> list[Batch]:
    parts: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        parts.setdefault(int(number), {})[name] = value
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
    return run / PLACE / f"batches_rank{rank}.safetensors"
