"""The balanced loss as a function of logits, for a training loop that has them.

Unlike `token_nll`, which this package's own loops use, it needs the logits of whole rows in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import cross_entropy

from percasym.objectives.coefficients import coefficients, span_counts
from percasym.types import Span

IGNORED = -100
"""transformers' label of a token without a loss."""


def span_loss(logits: Tensor, labels: Tensor, spans: Tensor, weight: float | None = None, *, counts: Sequence[int] | None = None) -> Tensor:
    """`w L_p + (1 - w) L_r`, a scalar; each loss is the mean over its own span of the negative log-likelihood in nats.

    - logits: [B, T, V] of a causal language model. As in transformers, those at t predict the token at t + 1.
    - labels: [B, T] token ids, -100 on tokens without a loss.
    - spans: [B, T], 0 (perception) or 1 (reasoning) on every token with a label (`label_spans`, `SpanCollator`).
    - weight: w in [0, 1]; 1 gives L_p and 0 gives L_r. None is the token average N_p / (N_p + N_r): ordinary fine-tuning.
    - counts: (N_p, N_r) of the whole optimizer step. Under gradient accumulation give those of all its micro-batches and sum the losses
      (`span_counts` counts them); under DDP give those of all ranks and multiply the loss by their number, because DDP averages.

    A span without tokens adds nothing. Raises ValueError for other shapes, a weight outside [0, 1], and a label without a span.

    >>> import torch
    >>> ids, spans = torch.tensor([[5, 0, 1, 1]]), torch.tensor([[-1, 0, 1, 1]])
    >>> logits = torch.zeros(1, 4, 8)  # A uniform guess among 8: each token costs ln 8 = 2.08 nats.
    >>> round(float(span_loss(logits, ids.where(spans >= 0, -100), spans, 0.3)), 2)
    2.08
    """
    if weight is not None and not 0 <= weight <= 1:
        raise ValueError(f"weight must lie in [0, 1], got {weight}.")
    if not logits.shape[:2] == labels.shape == spans.shape:
        raise ValueError(f"logits [B, T, V], labels and spans [B, T] must agree, got {[list(x.shape) for x in (logits, labels, spans)]}.")
    targets, own = labels[:, 1:], spans[:, 1:]
    with_loss = targets != IGNORED
    if (with_loss & (own != Span.perception) & (own != Span.reasoning)).any():
        raise ValueError("A token with a label has no span. A span is 0 (perception) or 1 (reasoning); a label without a loss is -100.")
    own = own.masked_fill(~with_loss, -1)
    num_p, num_r = (int(count) for count in (span_counts([own.cpu()]) if counts is None else counts))
    if weight is None:
        weight = num_p / max(1, num_p + num_r)
    nll = cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets.flatten(), ignore_index=IGNORED, reduction="none").view(own.shape)
    factors = coefficients(own, {Span.perception: weight, Span.reasoning: 1 - weight}, (num_p, num_r))
    return (nll * factors).sum()
