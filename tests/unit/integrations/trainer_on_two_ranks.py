"""What BalancedTrainer must do under DDP; `test_two_ranks.py` starts this file under torchrun, once in each of two processes."""

from __future__ import annotations

import pytest
import torch
from torch import distributed

from percasym.balance.registry import balancer

QUICK = {("none", 4), ("fixed", 1), ("ngdiff", 1), ("ngdiff", 4)}
"""Strategy and accumulation steps that `make test` runs."""
CASES = [
    pytest.param(name, accumulation, marks=[] if (name, accumulation) in QUICK else pytest.mark.slow)
    for name in ("none", "fixed", "ngdiff")
    for accumulation in (1, 4)
]


@pytest.mark.parametrize(("name", "accumulation"), CASES)
def test_two_processes_have_the_curve_of_the_own_loop_on_one(
    name, accumulation, windows, own_loop, make_trainer, logged, assert_same_curve
) -> None:
    steps = windows(micro=2 * accumulation)
    ours, model = own_loop(steps, balancer(name))
    trainer = make_trainer(steps, name, accumulation=accumulation, ddp_backend="gloo")
    trainer.train()
    assert distributed.get_world_size() == 2
    assert type(trainer.model_wrapped).__name__ == "DistributedDataParallel"
    if trainer.args.process_index == 0:
        assert_same_curve(logged(trainer), ours)
    mine = torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])
    theirs = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert float((mine - theirs).abs().max()) < 1e-3
    other = [torch.empty_like(mine) for _ in range(2)]
    distributed.all_gather(other, mine)
    assert torch.equal(*other)


def test_every_kind_of_strategy_keeps_its_own_curve(windows, own_loop, make_trainer, logged, assert_same_curve) -> None:
    steps = windows(steps=4, micro=4)
    for name in ("hidden", "dwa", "mgda"):
        ours, _ = own_loop(steps, balancer(name))
        trainer = make_trainer(steps, name, accumulation=2, ddp_backend="gloo")
        trainer.train()
        if trainer.args.process_index == 0:
            assert_same_curve(logged(trainer), ours)


def test_an_evaluation_counts_every_row_once(windows, make_trainer) -> None:
    (rows,) = windows(steps=1, micro=8)
    trainer = make_trainer([rows], "none", ddp_backend="gloo", per_device_eval_batch_size=1)
    trainer.eval_dataset = type(trainer.eval_dataset)(rows[:7])  # Seven rows for two ranks: the last batch is filled up with the first row.
    found = trainer.evaluate()
    sums, counts = torch.zeros(2), torch.zeros(2)
    for batch in rows[:7]:
        logits = trainer.model.eval()(input_ids=batch.ids, attention_mask=batch.mask, **batch.inputs, **batch.aligned).logits[:, :-1]
        nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch.ids[:, 1:], reduction="none").detach()
        for span in (0, 1):
            sums[span] += nll[batch.labels[:, 1:] == span].sum()
            counts[span] += (batch.labels[:, 1:] == span).sum()
    for span, loss in zip(("perception", "reasoning"), (sums / counts).tolist(), strict=True):
        assert found[f"eval_loss/{span}"] == pytest.approx(loss, rel=1e-4)
