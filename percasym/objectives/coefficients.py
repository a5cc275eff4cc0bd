"""Coefficients of the objective: from span weights to one factor for each token.

    L = sum_k w_k L_k,   L_k = (1 / N_k) sum of the NLL of the tokens of span k

so each token of span k has the coefficient c_t = w_k / N_k. N_k counts the tokens of the whole optimizer step, over all micro-batches and
ranks, so every split of the step into micro-batches gives the same gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from percasym.types import Span


def span_counts(labels: Iterable[Tensor]) -> Tensor:
    """[2] int64: supervised tokens of perception and reasoning in all the given labels.

    >>> span_counts([torch.tensor([[-1, 0, 1, 1]]), torch.tensor([[-1, 0, -1, -1]])]).tolist()
    [2, 2]
    """
    return sum((torch.stack([(part == span).sum() for span in Span]) for part in labels), torch.zeros(len(Span), dtype=torch.int64))


def span_sums(nll: Tensor, labels: Tensor) -> Tensor:
    """[2] float64: the summed loss of each span, from [B, T] losses and labels, on their device."""
    return torch.stack([nll.detach().double().mul(labels == span).sum() for span in Span])


def coefficients(labels: Tensor, weights: Mapping[Span, float], counts: Sequence[int]) -> Tensor:
    """[B, T] float32: w_k / N_k on each token of span k, zero on every other token and on spans without a weight.

    `counts` are (N_p, N_r) of the whole optimizer step.

    >>> coefficients(torch.tensor([[-1, 0, 0, 1]]), {Span.perception: 0.5, Span.reasoning: 0.5}, counts=(2, 1)).tolist()
    [[0.0, 0.25, 0.25, 0.5]]
    """
    result = torch.zeros(labels.shape, device=labels.device)
    for span, weight in weights.items():
        if counts[span]:  # A span without tokens in this step has no loss.
            result.masked_fill_(labels == span, weight / counts[span])
    return result
