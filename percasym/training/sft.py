"""Supervised fine-tuning with one weight for each response span.

Unlike ordinary SFT, the loss of each span is averaged over its own tokens, counted over the whole optimizer step, and a strategy sets the
weight of the two means from the token counts, losses or gradients of the step:

    L = w L_p + (1 - w) L_r

    python train.py paradigm=sft balance=ngdiff
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from percasym.balance.base import Balancer, SpanStats
from percasym.config.paradigm import Sft
from percasym.engine.base import Engine
from percasym.models.base import Batch
from percasym.objectives.coefficients import span_counts
from percasym.runs.base import Run
from percasym.tokens.base import TokenWeights
from percasym.training.divergence import diverged, record_divergence
from percasym.training.progress import TrainingState, learning_rate, save_or_stop
from percasym.training.span_gradients import Share, backward, hidden_norm_means, measure_spans, share_of, span_means, step_metrics
from percasym.training.token_factors import token_factors
from percasym.types import Span


def train(
    *,
    engine: Engine,
    batches: Iterable[Sequence[Batch]],
    balancer: Balancer,
    settings: Sft,
    run: Run,
    evaluate: Callable[[int], None],
    tokens: TokenWeights | None = None,
    start: TrainingState | None = None,
) -> Share | None:
    """Train for `settings.steps` updates in total and return perception's share at the first step.

    With `tokens`, batches have masked pictures and each loss is multiplied by the factor of its token. `loss/*` stay those without factors,
    and no step measures the two gradients apart, so there is no share.

    `batches` yields the micro-batches of this rank, one window for each remaining step. Steps are counted from 1: the metrics logged at n
    were measured before update n; `evaluate(n)` and checkpoint n follow it.

    Raises TrainingDivergedError when the loss or its gradient is not finite, Stopped on a signal, ValueError when `batches` ends too early.
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
            factors = None if tokens is None else token_factors(engine, window, tokens, num_rows=settings.batch_size)
            measured = factors is None and (balancer.needs == "gramian" or probe_due(step, settings.probe_every))
            if measured:
                stats = measure_spans(engine, window, stats, max_rows=settings.micro_batch_size)
            if balancer.needs == "gramian":
                balance = balancer.step(balance, stats)

            weight = balance.weight
            weights = {Span.perception: weight, Span.reasoning: 1 - weight}
            if measured:
                engine.combine(weights)
            else:
                sums = backward(engine, window, weights, counts, factors)
                stats = replace(stats, losses=span_means(engine.all_reduce_sum(sums), counts))
            info = engine.step(learning_rate(settings, step))

            if hidden_norms is not None:
                stats = replace(stats, hidden=hidden_norm_means(engine.all_reduce_sum(hidden_norms.take()), counts))
            if balancer.needs in ("losses", "hidden"):
                balance = balancer.step(balance, stats)  # Takes effect at the next step.

            done, seconds = step + 1, time.perf_counter() - began
            share = share or (share_of(stats) if factors is None else None)
            values = step_metrics(stats, weight) | {"grad/norm": info.grad_norm, "lr": info.lr}
            run.log(done, values | {"time/step_seconds": seconds, "tokens_per_second": sum(counts) / seconds})
            if diverged(values):
                raise record_divergence(run, engine.rank, settings, done, values, window)
            bar.advance(done, L_p=values["loss/perception"], L_r=values["loss/reasoning"], weight=weight)
            if settings.evaluates_after(done):
                evaluate(done)
            save_or_stop(run, engine, settings, TrainingState(step=done, balance=balance, share=share))
            began = time.perf_counter()  # A step's time includes waiting for data, not evaluations and checkpoints.
    assert share is not None or tokens is not None, "the first step measures the share, and a run has at least one step"
    return share


def probe_due(step: int, every: int) -> bool:
    """Whether both gradients are measured at step number `step` (from 0): at the first, then at each `every`-th.

    >>> [step for step in range(7) if probe_due(step, 3)], [step for step in range(7) if probe_due(step, 0)]
    ([0, 3, 6], [0])
    """
    return step == 0 or (every > 0 and step % every == 0)
