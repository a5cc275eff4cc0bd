"""What BalancedSFTTrainer must do under DDP; `test_two_ranks.py` starts this file under torchrun, once in each of two processes."""

from __future__ import annotations

import pytest
from torch import distributed

from percasym.balance.registry import balancer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("name", ["none", "fixed", "ngdiff"])
def test_two_processes_have_the_curve_of_the_own_loop_on_one(
    name, accumulation, text_windows, own_loop, train_with_trl, logged, assert_same_curve
) -> None:
    steps = text_windows(micro=2 * accumulation)
    ours, _ = own_loop(steps, balancer(name))
    trainer = train_with_trl(steps, name, rows_each=4 // accumulation, accumulation=accumulation, ddp_backend="gloo")
    assert distributed.get_world_size() == 2
    if trainer.args.process_index == 0:
        assert_same_curve(logged(trainer), ours)
