"""`percasym.audit(model, rows)`: perception's share of a first step, measured on someone else's model and batches.

    found = percasym.audit(model, rows, collator)        # rows of a dataset and the collator of a trainer, spans included
    print(found.share.gradient, found.ngdiff, found.advice())

`percasym audit` (the command) measures the same for a configuration. Nothing is updated: open gradients and the mode of the model are as
before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from percasym.balance.base import SpanStats
from percasym.config.schema import ConfigError
from percasym.engine.inner_products import Parts
from percasym.integrations.forward import SpanForward, check_losses, span_labels
from percasym.models.adapt import PARTS, part_of
from percasym.models.mode import evaluating
from percasym.models.parts import parts_of
from percasym.objectives.coefficients import coefficients, span_counts, span_sums
from percasym.training.audit import Audit, Coupling, Spelling, products
from percasym.training.span_gradients import span_means
from percasym.types import Span

TRAINER = Spelling(
    none='BalancedTrainer(balance="none")',
    ngdiff='balance="ngdiff"',
    fixed="balance=percasym.Fixed(weight={:.2f})",
    freeze="freezing {} (requires_grad_(False))",
    frozen="which parameters are trained (requires_grad)",
    again="audit that model, too",
    answers="give the model's answers (answers=)",
    steps="num_steps=",
)
"""What `BalancedTrainer` calls the options of train.py."""


def audit(
    model: Any,
    rows: Iterable[Any],
    collator: Callable[[list[Any]], Mapping[str, Any]] | None = None,
    *,
    batch_size: int = 1,
    answers: Iterable[tuple[bool, bool]] = (),
    num_steps: int | None = None,
) -> Audit:
    """Tokens, losses and gradients of both spans over all `rows`, as one optimizer step of ordinary training would see them.

    - model: a causal language model or vision-language model of transformers, adapters of peft included, with its trained parameters.
    - rows: batches with `input_ids`, `labels` and `spans` ([B, T]; `SpanCollator`); or, with `collator`, what it makes batches of.
    - batch_size: rows in a batch of `collator`.
    - answers, num_steps: the model's own answers before training as (is the percept p*?, is the answer right?), and the optimizer steps of
      the training that is planned. With both, the advice says what the rule of experiments/balancing_map expects.

    Costs two forward and backward passes, and the memory of two gradients. Returns what `percasym audit` prints: `share.tokens`,
    `share.loss`, `share.gradient`, the norms of each part (`groups`), the weight that NGDiff would choose (`ngdiff`), and `advice()`.

    Raises ConfigError for batches without spans, no rows, and models whose token losses are not known.
    """
    if num_steps is not None and num_steps < 1:
        raise ConfigError(f"num_steps must be at least 1, got {num_steps}.")
    graded = _pairs(answers)
    batches = list(rows) if collator is None else [collator(some) for some in _groups(rows, batch_size)]
    if not batches:
        raise ConfigError("percasym.audit needs at least one row, and there is none.")
    labels = [span_labels(batch) for batch in batches]
    perception, reasoning = (int(count) for count in span_counts(own.cpu() for own in labels))
    counts = (perception, reasoning)
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    if not trained:
        raise ConfigError(f"No parameter of {type(model).__name__} is trained (requires_grad), so there is no gradient to measure.")
    device = next(iter(trained.values())).device
    sums, gradients = torch.zeros(len(Span), dtype=torch.float64), dict[Span, Parts]()
    with _measured(model) as forward:
        for span in Span:
            for batch, own in zip(batches, labels, strict=True):
                inputs = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
                if span is Span.perception:
                    check_losses(forward, model, inputs, own.to(device))
                rest = {name: value for name, value in inputs.items() if name not in ("labels", "spans")}
                factors = coefficients(own, {span: 1.0}, counts).to(device)
                loss, nll = model(**rest, span_coefficients=factors, span_labels=own.to(device))
                if loss.requires_grad:
                    loss.backward()
                if span is Span.reasoning:
                    sums += span_sums(nll, own.to(device)).cpu()
            gradients[span] = [weight.grad for weight in trained.values()]
            for weight in trained.values():
                weight.grad = None
    parts = parts_of(model)
    owners = [part_of(name, parts) for name in trained]

    def of(group: str) -> Iterator[Parts]:
        return ([part for part, owner in zip(gradients[span], owners, strict=True) if owner == group] for span in Span)

    stats = SpanStats(
        step=0, num_steps=1, counts=counts, losses=span_means(sums, counts), gramian=products(*(gradients[span] for span in Span))
    )
    return Audit(
        stats=stats,
        groups={group: products(*of(group)) for group in PARTS if group in owners},
        chance=math.log(model.config.get_text_config().vocab_size),
        data=None,
        num_samples=sum(len(own) for own in labels),
        coupling=Coupling.of(graded) if graded else None,
        num_steps=num_steps,
        spelling=TRAINER,
    )


def _pairs(answers: Iterable[tuple[bool, bool]]) -> list[tuple[bool, bool]]:
    """The answers as pairs. Raises ConfigError for what is none."""
    found = list(answers)
    for one in found:
        if not isinstance(one, tuple | list) or len(one) != 2:
            raise ConfigError(f"answers must be pairs (is the percept p*?, is the answer right?), got {one!r}.")
    return found


def _groups(rows: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Rows in lists of `size`, the last one shorter."""
    if size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {size}.")
    if isinstance(rows, Mapping):
        names = ", ".join(map(str, rows))
        raise ConfigError(f"rows is a mapping of columns ({names}), as a slice of a datasets.Dataset is. Pass dataset.select(range(8)).")
    left = iter(rows)
    while some := list(islice(left, size)):
        yield some


@contextmanager
def _measured(model: Any) -> Iterator[SpanForward]:
    """Within the context, the model returns span losses, is in evaluation mode, and has no open gradient."""
    own = model.__dict__.get("forward")
    kept = {weight: weight.grad for weight in model.parameters()}
    forward = own if isinstance(own, SpanForward) else SpanForward(model, torch.float32)
    model.forward = forward
    for weight in kept:
        weight.grad = None
    try:
        with evaluating(model):  # Without dropout, so that an audit can be repeated.
            yield forward
    finally:
        if own is None:
            del model.forward
        else:
            model.forward = own
        for weight, gradient in kept.items():
            weight.grad = gradient
