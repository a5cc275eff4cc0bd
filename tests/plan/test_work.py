"""Operations of a plan beside those that PyTorch counts in a real forward and backward."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from percasym.models.adapt import Adaptation, Lora, adapt
from percasym.models.anatomy.qwen3vl import qwen3vl
from percasym.models.qwen3vl import Qwen3VL
from percasym.plan.layout import Layout
from percasym.plan.lengths import Lengths
from percasym.plan.parameters import count
from percasym.plan.work import sample_flops, work

ROWS = 2


def counted(model: torch.nn.Module, batch) -> int:
    """Operations of a forward and backward of the trunk."""
    with FlopCounterMode(display=False) as counter:
        model.model(**batch.arguments, use_cache=False).last_hidden_state.sum().backward()
    return counter.get_total_flops()


def setting(tiny_qwen, tiny_batch, adaptation: Adaptation):
    model = tiny_qwen(tied=False)
    model.set_attn_implementation("eager")  # PyTorch counts its multiplications one by one, and those of no fused kernel on the CPU.
    anatomy = qwen3vl(json.loads(model.config.to_json_string(use_diff=False)), None)
    model, batch = adapt(model, adaptation, Qwen3VL.parts).train(), tiny_batch(rows=ROWS)
    lengths = Lengths(prompt=3.0, picture=16, patches=64, perception=0.0, reasoning=batch.ids.shape[1] - 19.0, longest=0, source="by hand")
    return model, batch, anatomy, count(anatomy, adaptation), lengths


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("freeze", [(), ("vision",), ("vision", "projector")])
def test_operations_are_those_that_pytorch_counts(freeze, checkpointing, tiny_qwen, tiny_batch):
    adaptation = Adaptation(freeze=freeze, gradient_checkpointing=checkpointing)
    model, batch, anatomy, parameters, lengths = setting(tiny_qwen, tiny_batch, adaptation)
    layout = Layout(
        num_ranks=1, zero_stage=0, offload=False, computing_bytes=4, checkpointing=checkpointing, eager=True, adapters=False, rows=ROWS,
        step_rows=ROWS, measures_gradients=False, eval_rows=1, eval_bytes=4, max_new_tokens=1,
    )  # fmt: skip
    head = 6 * 61 * 32 * lengths.reasoning * ROWS  # The trunk alone is counted: 61 words, width 32, three passes.
    assert work(anatomy, parameters, layout, lengths).flops - head == pytest.approx(counted(model, batch), rel=0.01)


def test_adapters_spare_the_gradient_of_the_weights(tiny_qwen, tiny_batch):
    adaptation = Adaptation(lora=Lora(rank=2))
    model, batch, anatomy, parameters, lengths = setting(tiny_qwen, tiny_batch, adaptation)
    planned = sample_flops(anatomy, parameters, lengths.total, lengths, supervised=0, adapters=True)
    assert ROWS * planned == pytest.approx(counted(model, batch), rel=0.03)
    full = count(anatomy, Adaptation())
    assert planned < 0.75 * sample_flops(anatomy, full, lengths.total, lengths, supervised=0, adapters=False)


def test_measuring_gradients_costs_the_prefix_again(tiny_qwen, tiny_batch):
    _, _, anatomy, parameters, lengths = setting(tiny_qwen, tiny_batch, Adaptation())
    lengths = replace(lengths, perception=5.0, reasoning=100.0)
    layout = Layout(
        num_ranks=1, zero_stage=0, offload=False, computing_bytes=4, checkpointing=False, eager=False, adapters=False, rows=1,
        step_rows=8, measures_gradients=True, eval_rows=1, eval_bytes=4, max_new_tokens=1,
    )  # fmt: skip
    cost = work(anatomy, parameters, layout, lengths)
    prefix = sample_flops(anatomy, parameters, 24.0, lengths, supervised=5.0, adapters=False)  # Prompt 3, picture 16, perception 5.
    assert cost.flops == pytest.approx(cost.model_flops + 8 * prefix)
    assert (cost.tokens, cost.supervised) == (8 * 124.0, 8 * 105.0)
