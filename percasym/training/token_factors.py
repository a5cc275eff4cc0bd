"""Factors of single tokens (`percasym.tokens`) for batches of demonstrations and for groups of rollouts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from percasym.engine.base import Engine
from percasym.models.base import Batch
from percasym.rewards.base import Policy
from percasym.tokens.base import Array, TokenWeights
from percasym.types import UNSUPERVISED, Rollout


@torch.no_grad()
def token_factors(engine: Engine, window: Sequence[Batch], tokens: TokenWeights, *, num_rows: int) -> list[Tensor]:
    """[B, T] float32 factors of the supervised tokens of each batch, 1 elsewhere; two forwards without gradient for each batch.

    `num_rows` is the number of rows of the step over all ranks; every rank makes as many forwards.
    """
    gains: list[Array] = []
    for batch in window:
        with_picture, without = (-engine.nll(own).cpu().double() for own in (batch, batch.with_masked_pictures))
        for row, mask in enumerate(batch.labels != UNSUPERVISED):
            gains.append(tokens.gains(with_picture[row][mask].numpy(), without[row][mask].numpy()))
    own = torch.tensor([[_mean(one), float(len(one))] for one in gains], dtype=torch.float64)  # [rows of this rank, 2]
    whole = torch.zeros(num_rows, 2, dtype=torch.float64)
    whole[engine.rank :: engine.num_ranks] = own
    means, sizes = engine.all_reduce_sum(whole).numpy().T
    found, rows = [], iter(gains)
    for batch in window:
        factors = torch.ones(batch.labels.shape)
        for row, mask in enumerate(batch.labels != UNSUPERVISED):
            factors[row][mask] = torch.tensor(tokens.factors(next(rows), means, sizes), dtype=torch.float32)
        found.append(factors)
    return found


def rollout_factors(
    groups: Sequence[Sequence[Rollout]], tokens: TokenWeights, policy: Policy, of_all_ranks: Callable[[Tensor], Tensor]
) -> tuple[list[Array], float]:
    """The factors of each rollout's tokens, in order of the groups, and the mean gain of a token over all ranks.

    Log-probabilities with the picture are those of the sampler. `of_all_ranks` gives [P, G] over all ranks from this rank's groups.
    """
    rollouts = [rollout for group in groups for rollout in group]
    masked = {prompt: tokens.without(prompt) for prompt in dict.fromkeys(rollout.prompt for rollout in rollouts)}
    without = policy.logprobs([masked[rollout.prompt] for rollout in rollouts], rollouts)
    gains = [
        tokens.gains(np.array(rollout.completion.logprobs, dtype=float), np.array(other, dtype=float))
        for rollout, other in zip(rollouts, without, strict=True)
    ]
    shape = (len(groups), len(groups[0]))
    means, sizes = (
        of_all_ranks(torch.tensor(numbers, dtype=torch.float64).view(shape)).flatten().numpy()
        for numbers in ([_mean(one) for one in gains], [float(len(one)) for one in gains])
    )
    mean = float((means * sizes).sum() / sizes.sum())
    return [tokens.factors(one, means, sizes) for one in gains], mean


def _mean(gains: Array) -> float:
    return float(gains.mean()) if gains.size else 0.0
