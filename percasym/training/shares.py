"""How much of a step perception is, in tokens, in loss and in gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

from percasym.balance.base import SpanStats


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Perception's part of ordinary, token-averaged training at the first step: what balancing starts from.

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
    """The share under the token average of a step whose losses and gradients were measured."""
    assert stats.losses is not None, "a share is taken after the losses are known"
    assert stats.gramian is not None, "a share is taken where the gradients were measured"
    (seen, thought), (seen_loss, thought_loss), (seen_norm, thought_norm) = stats.counts, stats.losses, stats.gramian.norms
    return Share(
        tokens=part(seen, thought),
        loss=part(seen * seen_loss, thought * thought_loss),
        gradient=part(seen * seen_norm, thought * thought_norm),
    )


def measurements(stats: SpanStats, weight: float) -> dict[str, float]:
    """What a step logs of its spans; gradients only where they were measured.

    - `loss/<span>`: mean NLL of the span's tokens over the whole step, before the update; nan without tokens.
    - `loss/total`: w L_p + (1 - w) L_r, the objective; a span without tokens adds nothing.
    - `tokens/<span>`: supervised tokens; `share/tokens`: perception's part of them.
    - `balance/weight`: w. `share/loss`: w L_p / `loss/total`, perception's part of the loss actually optimised.
    - `hidden/<span>`: norm of d L_k / d H at the last hidden states; where the strategy reads it.
    - `grad/<span>`: |g_k| of the unweighted span mean; `grad/cosine`: between the two.
    - `share/gradient`: w |g_p| / (w |g_p| + (1 - w) |g_r|), perception's part of the gradient actually applied.
    """
    assert stats.losses is not None, "a step is logged after its losses are known"
    (seen, thought), (seen_loss, thought_loss) = stats.counts, stats.losses
    weighted = (weight * seen_loss if seen else 0.0, (1 - weight) * thought_loss if thought else 0.0)
    values = {
        "loss/perception": seen_loss,
        "loss/reasoning": thought_loss,
        "loss/total": sum(weighted),
        "tokens/perception": float(seen),
        "tokens/reasoning": float(thought),
        "share/tokens": part(seen, thought),
        "share/loss": part(*weighted),
        "balance/weight": weight,
    }
    if stats.hidden is not None:
        values |= {"hidden/perception": stats.hidden[0], "hidden/reasoning": stats.hidden[1]}
    if stats.gramian is not None:
        seen_norm, thought_norm = stats.gramian.norms
        values |= {
            "grad/perception": seen_norm,
            "grad/reasoning": thought_norm,
            "grad/cosine": stats.gramian.cosine,
            "share/gradient": part(weight * seen_norm, (1 - weight) * thought_norm),
        }
    return values
