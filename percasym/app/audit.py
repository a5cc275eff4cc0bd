"""`percasym audit`: perception's share of tokens, loss and gradient, before any training.

One forward and backward pass over some samples with the trainer's own functions; nothing is updated or written.

    percasym audit task=jsonl task.path=rows.jsonl model.path=DIR --samples 64
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from percasym.app.recipes.sft import SftRecipe
from percasym.balance.base import SpanStats
from percasym.config.paradigm import Sft
from percasym.config.schema import ConfigError
from percasym.config.settings import Settings, TorchSettings
from percasym.data.checks import with_checked_rows
from percasym.data.generated import Generated
from percasym.engine.inner_products import Parts
from percasym.engine.torch import torch_engine
from percasym.models.adapt import PARTS, Part, part_of
from percasym.models.checkpoint import silence_transformers
from percasym.objectives.coefficients import span_counts
from percasym.tasks.base import Task, data_summary, require_rows
from percasym.training.audit import Audit, Coupling, products
from percasym.training.span_gradients import measure_spans
from percasym.types import Span

NUM_SAMPLES = 64
"""Samples of an audit that does not say how many."""


def audit(settings: Settings, *, num_samples: int | None, device: torch.device, coupling: Coupling | None = None) -> Audit:
    """Measure the first `num_samples` training samples of a configuration, as its first step would with `paradigm.batch_size=num_samples`.

    None measures `NUM_SAMPLES`, or all rows of collected data where they are fewer; no row is counted twice. The advice uses `coupling`,
    that of the model's answers before training.

    Raises ConfigError for a wrong number, for paradigm=rl, and for data or a checkpoint that cannot be read.
    """
    paradigm = settings.paradigm
    if num_samples is not None and num_samples < 1:
        raise ConfigError(f"--samples must be at least 1, got {num_samples}.")
    if not isinstance(paradigm, Sft):
        raise ConfigError("percasym audit measures demonstrations, and paradigm=rl has none. Leave paradigm=rl out.")
    silence_transformers()
    torch.manual_seed(settings.seed)
    settings = with_checked_rows(settings)
    num_samples = _available(settings.task, num_samples)
    rows = max(size for size in range(1, min(paradigm.micro_batch_size, num_samples) + 1) if num_samples % size == 0)
    data = Generated(
        task=settings.task,
        family=settings.family,
        batch_size=num_samples,
        micro_batch_size=rows,
        seed=settings.seed,
        split=SftRecipe.split,
        text_frac=paradigm.text_frac,
    )
    try:
        window = data.window(0)
        precision = TorchSettings(precision=settings.engine.precision)  # All engines compute the same gradient; this one needs no set-up.
        model = settings.family.load()
        chance = math.log(model.config.get_text_config().vocab_size)
        engine = torch_engine(model, settings=precision, paradigm=paradigm, device=device)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    perception, reasoning = (int(count) for count in span_counts(batch.labels for batch in window))
    counts = (perception, reasoning)
    trained = [name for name, parameter in engine.model.named_parameters() if parameter.requires_grad]
    stats = measure_spans(engine, window, SpanStats(step=0, num_steps=1, counts=counts))
    gradients = {span: dict(zip(trained, engine.kept_gradient(span), strict=True)) for span in Span}
    owners = {name: part_of(name, settings.family.parts) for name in trained}

    def of(group: Part) -> Iterator[Parts]:
        return ([gradient for name, gradient in gradients[span].items() if owners[name] == group] for span in Span)

    return Audit(
        stats=stats,
        groups={group: products(*of(group)) for group in PARTS if group in owners.values()},
        chance=chance,
        data=None if (about := settings.task.about()) is None else data_summary(about),
        num_samples=num_samples,
        coupling=coupling,
        num_steps=paradigm.steps,
    )


def _available(task: Task, num_samples: int | None) -> int:
    """The number of samples to measure. Raises ConfigError where rows of collected data would be counted twice, or cannot be read."""
    try:
        if num_samples is not None:
            require_rows(task, SftRecipe.split, num_samples, "--samples")
            return num_samples
        return NUM_SAMPLES if (about := task.about()) is None else min(NUM_SAMPLES, max(1, about["rows"][SftRecipe.split]))
    except ValueError as error:
        raise ConfigError(str(error)) from error
