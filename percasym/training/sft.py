"""Supervised fine-tuning with one weight per response span.

Unlike ordinary SFT, each span is averaged over its own tokens, counted over the whole optimizer step,
and a strategy sets the weight between the two means, from counts, losses or gradients of the step:

    python train.py paradigm=sft balance=ngdiff
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from percasym.balance.base import Balancer, SpanStats
from percasym.config.paradigm import Sft
from percasym.engine.base import Engine
from percasym.models.base import Batch
from percasym.objectives.coefficients import coefficients, span_counts, span_sums
from percasym.runs.base import Run
from percasym.training.progress import TrainingState, diverged, divergence, settle
from percasym.training.schedule import learning_rate
from percasym.training.shares import Share, measurements, share_of
from percasym.types import Span


def train(
    *,
    engine: Engine,
    batches: Iterable[Sequence[Batch]],
    balancer: Balancer,
    settings: Sft,
    run: Run,
    evaluate: Callable[[int], None],
    start: TrainingState | None = None,
) -> Share:
    """Train until `settings.steps` updates are done and return perception's share at the first.

    `batches` yields the micro-batches of this rank, one window for each step still to do. Steps are counted from 1: the numbers
    logged at n were measured before the n-th update, `evaluate(n)` and checkpoint n come after it.

    Raises TrainingDivergedError when the loss or its gradient is not finite, Stopped when that was asked from outside, ValueError when
    `batches` does not last as long as the steps.
    """
    state = start or TrainingState(step=0, balance=balancer.start(), share=None)
    balance, share = state.balance, state.share
    hidden_norms = engine.hidden_norms() if balancer.needs == "hidden" else None
    with run.progress(settings.steps, "training", start=state.step) as bar:
        began = time.perf_counter()
        for step, window in zip(range(state.step, settings.steps), batches, strict=True):
            counts = tuple(engine.all_reduce_sum(span_counts(batch.labels for batch in window)).tolist())  # (N_p, N_r) of the whole step
            stats = SpanStats(step=step, num_steps=settings.steps, counts=counts)
            if balancer.needs == "counts":
                balance = balancer.step(balance, stats)
            measured = balancer.needs == "gramian" or probe_due(step, settings.probe_every)
            if measured:
                # Attention is causal: the prefix gives g_p exactly, at the cost of its own length.
                with engine.cache_vision():
                    backward(engine, prefixes(window, Span.perception, settings.micro_batch_size), {Span.perception: 1.0}, counts)
                engine.keep_gradient(Span.perception)
                with engine.reuse_vision():
                    sums = backward(engine, window, {Span.reasoning: 1.0}, counts)
                engine.keep_gradient(Span.reasoning)
                stats = replace(stats, gramian=engine.gramian(), losses=means(engine.all_reduce_sum(sums), counts))
            if balancer.needs == "gramian":
                balance = balancer.step(balance, stats)
            weight = balance.weight
            weights = {Span.perception: weight, Span.reasoning: 1 - weight}
            if measured:
                engine.combine(weights)
            else:
                sums = backward(engine, window, weights, counts)
            info = engine.step(learning_rate(settings, step))
            if not measured:
                stats = replace(stats, losses=means(engine.all_reduce_sum(sums), counts))
            if hidden_norms is not None:
                stats = replace(stats, hidden=norms(engine.all_reduce_sum(hidden_norms.take()), counts))
            if balancer.needs in ("losses", "hidden"):
                balance = balancer.step(balance, stats)  # Known only now, so it moves the next step's weight.

            done, seconds = step + 1, time.perf_counter() - began
            share = share or share_of(stats)
            values = measurements(stats, weight) | {"grad/norm": info.grad_norm, "lr": info.lr}
            run.log(done, values | {"time/step_seconds": seconds, "tokens_per_second": sum(counts) / seconds})
            if diverged(values):
                raise divergence(run, engine, settings, done, values, window)
            bar.advance(done, L_p=values["loss/perception"], L_r=values["loss/reasoning"], weight=weight)
            if settings.evaluates_after(done):
                evaluate(done)
            settle(run, engine, settings, TrainingState(step=done, balance=balance, share=share))
            began = time.perf_counter()  # A step's time holds its waiting for data, not evaluations and checkpoints.
    assert share is not None, "a run of at least one step has a first step"
    return share


def backward(engine: Engine, window: Sequence[Batch], weights: Mapping[Span, float], counts: Sequence[int]) -> Tensor:
    """Add the gradient of sum_k w_k L_k over the spans in `weights`; the summed loss of each span, [2], stays on the device."""
    sums = torch.zeros(len(Span), dtype=torch.float64)
    for batch in window:
        loss, nll = engine.loss(batch, coefficients(batch.labels, weights, counts))
        engine.backward(loss)
        sums = sums.to(nll.device) + span_sums(nll, batch.labels.to(nll.device))
    return sums


def prefixes(window: Sequence[Batch], span: Span, most: int) -> list[Batch]:
    """The same rows up to the last token of `span`, joined to forwards of at most `most` rows.

    Micro-batches may be small for the sake of their lengths; what they begin with is short and of like length.
    """
    groups: list[list[Batch]] = []
    for batch in window:
        if not groups or sum(len(other.ids) for other in groups[-1]) + len(batch.ids) > most:
            groups.append([])
        groups[-1].append(batch)
    return [Batch.joined(group).until(span) for group in groups]


def means(sums: Tensor, counts: Sequence[int]) -> tuple[float, float]:
    """(L_p, L_r) from the summed losses; nan for a span without tokens."""
    perception, reasoning = (total / count if count else math.nan for total, count in zip(sums.tolist(), counts, strict=True))
    return perception, reasoning


def norms(squares: Tensor, counts: Sequence[int]) -> tuple[float, float]:
    """Norms of d L_k / d H at the last hidden states H, from the summed squares of d nll_t / d h; nan for a span without tokens.

    The tokens of a span share no entry of H, so their squares add up.
    """
    return means(squares.sqrt(), counts)


def probe_due(step: int, every: int) -> bool:
    """Is step number `step` (from 0) one at which both gradients are measured: the first, then each `every`-th?

    >>> [step for step in range(7) if probe_due(step, 3)], [step for step in range(7) if probe_due(step, 0)]
    ([0, 3, 6], [0])
    """
    return step == 0 or (every > 0 and step % every == 0)
