"""What one optimizer step measures of the two spans: their losses, their gradients, and perception's share of both.

Each span loss L_k is a mean over the tokens of its span, counted over the whole step (all ranks and micro-batches). `measure_spans` is the
one place where both gradients are computed apart: the SFT loop, `percasym audit` and `percasym replay` use it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from percasym.balance.base import SpanStats
from percasym.engine.base import Engine
from percasym.models.base import Batch
from percasym.objectives.coefficients import coefficients, span_sums
from percasym.types import Span


def measure_spans(engine: Engine, window: Sequence[Batch], stats: SpanStats, *, max_rows: int = 0) -> SpanStats:
    """Compute both span gradients of a step and return `stats` with the losses and the Gramian; `stats.counts` must be known.

    The engine keeps the two gradients, of the unweighted losses L_p and L_r, for `combine`.

    - First pass, the perception prefix of each row: attention is causal, so it gives the exact gradient of L_p at the cost of its length.
      Prefixes of several micro-batches share a forward of at most `max_rows` rows (0: one forward for each micro-batch).
    - Second pass, whole rows: the gradient of L_r, and both losses. A frozen vision tower is not run again.
    """
    with engine.cache_vision():
        backward(engine, prefixes(window, Span.perception, max_rows), {Span.perception: 1.0}, stats.counts)
    engine.keep_gradient(Span.perception)
    with engine.reuse_vision():
        sums = backward(engine, window, {Span.reasoning: 1.0}, stats.counts)
    engine.keep_gradient(Span.reasoning)
    return replace(stats, gramian=engine.gramian(), losses=span_means(engine.all_reduce_sum(sums), stats.counts))


def backward(
    engine: Engine,
    window: Sequence[Batch],
    weights: Mapping[Span, float],
    counts: Sequence[int],
    factors: Sequence[Tensor] | None = None,
) -> Tensor:
    """Add the gradient of sum_k w_k L_k over the spans in `weights`; returns the summed loss of each span, [2], on the engine's device.

    `factors` [B, T] of each batch multiply the coefficients of its tokens; the sums that are returned are without them.
    """
    sums = torch.zeros(len(Span), dtype=torch.float64)
    for number, batch in enumerate(window):
        own = coefficients(batch.labels, weights, counts)
        loss, nll = engine.loss(batch, own if factors is None else own * factors[number])
        engine.backward(loss)
        sums = sums.to(nll.device) + span_sums(nll, batch.labels.to(nll.device))
    return sums


def prefixes(window: Sequence[Batch], span: Span, max_rows: int) -> list[Batch]:
    """The rows of a window up to the last token of `span`, in forwards of at most `max_rows` rows.

    Micro-batches may be small because their rows are long. Their prefixes are short and of similar length, so several fit in one forward.
    A micro-batch is never split.
    """
    groups: list[list[Batch]] = []
    for batch in window:
        if not groups or sum(len(other.ids) for other in groups[-1]) + len(batch.ids) > max_rows:
            groups.append([])
        groups[-1].append(batch)
    return [Batch.joined(group).until(span) for group in groups]


def span_means(sums: Tensor, counts: Sequence[int]) -> tuple[float, float]:
    """(L_p, L_r) from the summed losses [2]; nan for a span without tokens."""
    perception, reasoning = (total / count if count else math.nan for total, count in zip(sums.tolist(), counts, strict=True))
    return perception, reasoning


def hidden_norm_means(squares: Tensor, counts: Sequence[int]) -> tuple[float, float]:
    """Norms of d L_k / d H at the last hidden states H, from the sums [2] of |d nll_t / d h|^2; nan for a span without tokens.

    The tokens of a span have disjoint entries of H, so their squared norms add up.
    """
    return span_means(squares.sqrt(), counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Perception's share of ordinary, token-averaged training at the first step.

    It depends on the model and the first batch only, so it is the same under every strategy.
    """

    tokens: float
    """N_p / (N_p + N_r)."""
    loss: float
    """N_p L_p / (N_p L_p + N_r L_r)."""
    gradient: float
    """N_p |g_p| / (N_p |g_p| + N_r |g_r|), g_k the gradient of the span mean L_k."""


def part(own: float, other: float) -> float:
    """own / (own + other); nan when both are zero.

    >>> part(1.0, 3.0)
    0.25
    """
    return own / (own + other) if own + other else math.nan


def share_of(stats: SpanStats) -> Share:
    """The share of perception under the token average, from a step with measured losses and gradients."""
    assert stats.losses is not None, "the share needs the losses of the step"
    assert stats.gramian is not None, "the share needs the gradients of the step"
    (num_p, num_r), (loss_p, loss_r), (norm_p, norm_r) = stats.counts, stats.losses, stats.gramian.norms
    return Share(tokens=part(num_p, num_r), loss=part(num_p * loss_p, num_r * loss_r), gradient=part(num_p * norm_p, num_r * norm_r))


def step_metrics(stats: SpanStats, weight: float) -> dict[str, float]:
    """The span metrics that a step logs; those of gradients only where they were measured.

    - `loss/<span>`: mean NLL of the span's tokens over the whole step, before the update; nan without tokens.
    - `loss/total`: w L_p + (1 - w) L_r, the objective; a span without tokens adds nothing.
    - `tokens/<span>`: supervised tokens; `share/tokens`: perception's share of them.
    - `balance/weight`: w. `share/loss`: w L_p / `loss/total`, perception's share of the objective.
    - `hidden/<span>`: norm of d L_k / d H at the last hidden states; under a strategy that needs it.
    - `grad/<span>`: |g_k| of the unweighted span mean; `grad/cosine`: between the two.
    - `share/gradient`: w |g_p| / (w |g_p| + (1 - w) |g_r|), perception's share of the gradient norms in the update.
    """
    assert stats.losses is not None, "a step is logged after its losses are known"
    (num_p, num_r), (loss_p, loss_r) = stats.counts, stats.losses
    weighted = (weight * loss_p if num_p else 0.0, (1 - weight) * loss_r if num_r else 0.0)
    values = {
        "loss/perception": loss_p,
        "loss/reasoning": loss_r,
        "loss/total": sum(weighted),
        "tokens/perception": float(num_p),
        "tokens/reasoning": float(num_r),
        "share/tokens": part(num_p, num_r),
        "share/loss": part(*weighted),
        "balance/weight": weight,
    }
    if stats.hidden is not None:
        values |= {"hidden/perception": stats.hidden[0], "hidden/reasoning": stats.hidden[1]}
    if stats.gramian is not None:
        norm_p, norm_r = stats.gramian.norms
        values |= {
            "grad/perception": norm_p,
            "grad/reasoning": norm_r,
            "grad/cosine": stats.gramian.cosine,
            "share/gradient": part(weight * norm_p, (1 - weight) * norm_r),
        }
    return values
