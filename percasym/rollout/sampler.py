"""Which token comes next: the likeliest, or one drawn at random.

Unlike a draw from one shared generator, each row has its own, asked once a token: what a row says does not depend
on the rows beside it. Shapes: B unfinished rows of a batch, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

import torch
from torch import Tensor

from percasym.config.sampling import Sampling

TOTAL = 2**52
"""What probabilities of float32 are scaled to as integers: their sum is exact in int64 and in float64."""


class Chooser(Protocol):
    """Chooses for every row of a batch, once a token."""

    def choose(self, logits: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Next tokens [B] and their log-probabilities [B], from float32 logits [B, V] of these `rows`; it may overwrite the logits."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy:
    """The likeliest token; its log-probability is among the tokens that are allowed, at temperature 1."""

    banned: Tensor
    """Token ids, on the device of the logits."""

    def choose(self, logits: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Next tokens and their log-probabilities."""
        logits[:, self.banned] = -torch.inf
        chosen = logits.argmax(-1)
        return chosen, logits.gather(1, chosen[:, None]).squeeze(1) - logits.logsumexp(-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """One uniform number a token, through the inverse of the cumulative distribution.

    Bans, top-k and top-p (Holtzman et al. 2020, arXiv:1904.09751) narrow the choice, in this order. The log-probability
    is that of the whole vocabulary at the temperature: what a training forward gives, and what a ratio of policies divides by.
    """

    sampling: Sampling
    banned: Tensor
    """Token ids, on the device of the logits."""
    draws: Sequence[Random]
    """The generator of each row of the batch."""

    def choose(self, logits: Tensor, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Next tokens and their log-probabilities.

        Raises FloatingPointError when the logits are not finite.
        """
        logits /= self.sampling.temperature
        normaliser = logits.logsumexp(-1)
        if not normaliser.isfinite().all():
            raise FloatingPointError("The model's logits are not finite, so nothing can be sampled: its training has diverged.")
        uniform = torch.tensor([self.draws[row].random() for row in rows], dtype=torch.float64, device=logits.device)
        chosen = self._drawn(logits.index_fill(-1, self.banned, -torch.inf), uniform)
        return chosen, logits.gather(1, chosen[:, None]).squeeze(1) - normaliser

    def _drawn(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """[B] tokens."""
        top_k, top_p = self.sampling.top_k, self.sampling.top_p
        if not top_k and top_p == 1:
            return inverse_cdf(logits.softmax(-1), uniform)
        ordered, tokens = logits.sort(descending=True, stable=True)
        if top_k:
            ordered[:, top_k:] = -torch.inf
        chances = ordered.softmax(-1, dtype=torch.float64)
        likelier = chances.cumsum(-1) - chances  # 0 for the first token, so one is always kept.
        return tokens.gather(1, inverse_cdf(chances.masked_fill(likelier >= top_p, 0), uniform)[:, None]).squeeze(1)


def inverse_cdf(chances: Tensor, uniform: Tensor) -> Tensor:
    """[B] indices: in each row of `chances` [B, V], the first whose cumulative share is above `uniform` [B], float64 in [0, 1).

    In integers, because a parallel sum of floats may step back, and could then hit an index whose chance is 0.

    >>> inverse_cdf(torch.tensor([[0.0, 0.5, 0.0, 0.5]] * 2), torch.tensor([0.0, 0.5], dtype=torch.float64)).tolist()
    [1, 3]
    """
    cumulative = (chances * TOTAL).long().cumsum(-1)
    threshold = (uniform * cumulative[:, -1]).long()  # Below the last sum, however it is rounded.
    return torch.searchsorted(cumulative, threshold[:, None], right=True).squeeze(1)
