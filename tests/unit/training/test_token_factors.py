"""Factors of single tokens in supervised training: which forwards they need, over the ranks of a step, and what they multiply."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from percasym.balance.base import refuse_strategy_of_rl
from percasym.balance.fixed import Fixed
from percasym.balance.none import NoBalance
from percasym.balance.saw import Saw
from percasym.balance.staged import Staged
from percasym.data.generated import Generated
from percasym.models import locate
from percasym.models.base import Batch
from percasym.models.qwen3vl import Qwen3VL
from percasym.tasks.sudoku.task import Sudoku
from percasym.tokens.vig import Vig
from percasym.training.span_gradients import backward
from percasym.training.token_factors import token_factors
from percasym.types import UNSUPERVISED, Span

P, R, NONE = Span.perception, Span.reasoning, UNSUPERVISED
LABELS = torch.tensor([[NONE, P, P, R], [NONE, P, R, NONE]])
SEEN = torch.tensor([[0.0, 1.0, 1.0, 1.0], [0.0, 1.0, 2.0, 0.0]])
BLIND = torch.tensor([[0.0, 4.0, 1.0, 1.0], [0.0, 2.0, 1.0, 0.0]])
"""Losses with and without the picture: gains 3 0 0 and 1 0 (a loss that rises with the picture gains nothing)."""


class Losses:
    """An engine of some ranks whose losses are in the batch."""

    def __init__(self, rank: int = 0, num_ranks: int = 1) -> None:
        self.rank, self.num_ranks, self.given = rank, num_ranks, []

    def nll(self, batch):
        return batch.inputs["nll"]

    def loss(self, batch, coefficients):
        self.given.append(coefficients)
        return (coefficients * batch.inputs["nll"]).sum(), batch.inputs["nll"]

    def backward(self, loss):
        pass

    def all_reduce_sum(self, values):
        self.reduced = values.clone()
        return values


def batch(rows=slice(None)) -> Batch:
    ids = torch.ones(LABELS[rows].shape, dtype=torch.int64)
    return Batch(ids=ids, mask=ids, labels=LABELS[rows], inputs={"nll": SEEN[rows]}, masked={"nll": BLIND[rows]})


def test_factors_are_the_gains_over_their_mean_and_one_elsewhere() -> None:
    (found,) = token_factors(Losses(), [batch()], Vig(floor=0.0), num_rows=2)
    # Five tokens gain 4 in all: a mean of .8.
    assert_close(found, torch.tensor([[1.0, 3 / 0.8, 0.0, 0.0], [1.0, 1 / 0.8, 0.0, 1.0]]))
    (one, other) = token_factors(Losses(), [batch(slice(0, 1)), batch(slice(1, 2))], Vig(floor=0.0), num_rows=2)
    assert_close(torch.cat([one, other]), found)


def test_ranks_share_the_mean_of_the_step() -> None:
    whole = torch.zeros(2, 2, dtype=torch.float64)
    engines = [Losses(rank, 2) for rank in range(2)]
    for rank, engine in enumerate(engines):
        token_factors(engine, [batch(slice(rank, rank + 1))], Vig(floor=0.0), num_rows=2)
        whole += engine.reduced
    for rank, engine in enumerate(engines):
        engine.all_reduce_sum = lambda values: whole
        (found,) = token_factors(engine, [batch(slice(rank, rank + 1))], Vig(floor=0.0), num_rows=2)
        assert_close(found, token_factors(Losses(), [batch()], Vig(floor=0.0), num_rows=2)[0][rank : rank + 1])


def test_factors_multiply_the_coefficients_and_not_the_losses_that_are_logged() -> None:
    engine, factors = Losses(), [torch.tensor([[1.0, 2.0, 0.5, 3.0], [1.0, 0.0, 1.0, 1.0]])]
    weights, counts = {P: 0.3, R: 0.7}, (3, 2)
    sums = backward(engine, [batch()], weights, counts, factors)
    expected = torch.tensor([[0.0, 0.1, 0.1, 0.35], [0.0, 0.1, 0.35, 0.0]]) * factors[0]
    assert_close(engine.given[0], expected)
    assert sums.tolist() == [3.0, 3.0]
    plain = Losses()
    backward(plain, [batch()], weights, counts)
    assert_close(plain.given[0] * factors[0], expected)


def test_a_batch_carries_the_pixels_of_masked_pictures() -> None:
    family = Qwen3VL(path=locate.packaged("qwen3vl"))
    options = {"task": Sudoku(), "family": family, "batch_size": 4, "micro_batch_size": 2, "seed": 0, "ahead": False}
    plain, masked = Generated(**options), Generated(**options, without=Vig().without)
    for ours, theirs in zip(masked.window(0), plain.window(0), strict=True):
        assert torch.equal(ours.ids, theirs.ids)
        (pixels,) = (name for name in ours.inputs if "pixel" in name)
        assert torch.equal(ours.inputs[pixels], theirs.inputs[pixels])
        blind = ours.with_masked_pictures
        assert blind.inputs.keys() == ours.inputs.keys()
        assert float(blind.inputs[pixels].std()) < 0.2 * float(ours.inputs[pixels].std())
        assert theirs.masked == {}


@pytest.mark.parametrize("balancer", [Saw(), Staged()])
def test_a_strategy_of_rl_is_refused_in_supervised_training(balancer) -> None:
    with pytest.raises(ValueError, match=rf"^balance={type(balancer).__name__.lower()} is a strategy of RL"):
        refuse_strategy_of_rl(balancer)
    for other in (NoBalance(), Fixed(weight=0.3), SimpleNamespace(needs="gramian")):
        refuse_strategy_of_rl(other)


def test_no_gain_at_all_leaves_every_factor_at_one() -> None:
    blind = Batch(ids=batch().ids, mask=batch().mask, labels=LABELS, inputs={"nll": SEEN}, masked={"nll": SEEN})
    assert np.array_equal(token_factors(Losses(), [blind], Vig(), num_rows=2)[0].numpy(), np.ones((2, 4)))
