"""Operations of a plan beside those that PyTorch counts in a real forward and backward."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.checkpoint import set_checkpoint_early_stop
from torch.utils.flop_counter import FlopCounterMode

from percasym.models.adapt import Adaptation, Lora, adapt
from percasym.plan.inputs import Lengths, Sampled, count_parameters
from percasym.plan.work import forward_flops, sample_flops, work

ROWS = 2


def counted(model: torch.nn.Module, batch) -> int:
    """Operations of a forward and backward of the trunk; checkpointed layers are computed again to their ends, as ZeRO-3 makes them be.

    Left alone, PyTorch stops before a layer's last product (3 % of the whole here).
    """
    with FlopCounterMode(display=False) as counter, set_checkpoint_early_stop(False):
        model.model(**batch.arguments, use_cache=False).last_hidden_state.sum().backward()
    return counter.get_total_flops()


@pytest.fixture
def setting(family_name, tiny_model, tiny_batch, anatomy_of, parts):
    """A model of one family with a batch, and what a plan knows of both: `setting(adaptation)`."""

    def make(adaptation: Adaptation):
        model = tiny_model(tied=False)
        model.set_attn_implementation("eager")  # PyTorch counts its multiplications one by one, and those of no fused kernel on the CPU.
        anatomy = anatomy_of(model)
        model, batch = adapt(model, adaptation, parts).train(), tiny_batch(rows=ROWS)
        patches, response = 64 + (family_name == "internvl35"), batch.ids.shape[1] - 19.0  # 8 x 8, and InternVL's class token.
        lengths = Lengths(prompt=3.0, picture=16, patches=patches, perception=0.0, reasoning=response, longest=0, source="by hand")
        return model, batch, anatomy, count_parameters(anatomy, adaptation), lengths

    return make


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("freeze", [(), ("vision",), ("vision", "projector")])
def test_operations_are_those_that_pytorch_counts(freeze, checkpointing, setting, layout):
    adaptation = Adaptation(freeze=freeze, gradient_checkpointing=checkpointing)
    model, batch, anatomy, parameters, lengths = setting(adaptation)
    layout = replace(layout, checkpointing=checkpointing, eager=True, rows=ROWS, step_rows=ROWS, measures_gradients=False)
    head = 6 * 61 * 32 * lengths.reasoning * ROWS  # The trunk alone is counted: 61 words, width 32, three passes.
    assert work(anatomy, parameters, layout, lengths).flops - head == pytest.approx(counted(model, batch), rel=0.01)


def test_adapters_spare_the_gradient_of_the_weights(setting):
    adaptation = Adaptation(lora=Lora(rank=2))
    model, batch, anatomy, parameters, lengths = setting(adaptation)
    planned = sample_flops(anatomy, parameters, lengths.total, lengths, supervised=0, adapters=True)
    assert ROWS * planned == pytest.approx(counted(model, batch), rel=0.03)
    full = count_parameters(anatomy, Adaptation())
    assert planned < 0.75 * sample_flops(anatomy, full, lengths.total, lengths, supervised=0, adapters=False)


def test_measuring_gradients_costs_the_prefix_again(setting, layout):
    _, _, anatomy, parameters, lengths = setting(Adaptation())
    lengths = replace(lengths, perception=5.0, reasoning=100.0)
    layout = replace(layout, rows=1, step_rows=8)
    cost = work(anatomy, parameters, layout, lengths)
    prefix = sample_flops(anatomy, parameters, 24.0, lengths, supervised=5.0, adapters=False)  # Prompt 3, picture 16, perception 5.
    assert cost.flops == pytest.approx(cost.model_flops + 8 * prefix)
    assert (cost.tokens, cost.supervised) == (8 * 124.0, 8 * 105.0)


def test_a_forward_is_what_pytorch_counts(setting):
    adaptation = Adaptation()
    model, batch, anatomy, parameters, lengths = setting(adaptation)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.model(**batch.arguments, use_cache=False)
    planned = forward_flops(anatomy, parameters, lengths.total, lengths, supervised=0)
    assert ROWS * planned == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_a_round_of_rl_samples_compares_and_learns_in_each_epoch(setting, layout):
    _, _, anatomy, parameters, lengths = setting(Adaptation())
    lengths = replace(lengths, perception=5.0, reasoning=100.0)
    supervised = replace(layout, step_rows=8, measures_gradients=False)
    sampled = Sampled(group_size=4, epochs=2, max_new_tokens=200, decoded=None, vllm_frac=0.4, copied_bytes=0, queries=True, reference=True)
    once = work(anatomy, parameters, supervised, lengths).flops
    forward = 8 * forward_flops(anatomy, parameters, 124.0, lengths, supervised=105.0)  # Prompt 3, picture 16, 105 response.
    prompt = 8 * forward_flops(anatomy, parameters, 19.0, lengths, supervised=0)
    cost = work(anatomy, parameters, replace(supervised, sampled=sampled), lengths)
    assert cost.sampling_flops == pytest.approx(forward - 3 / 4 * prompt)  # Four siblings share one prefill.
    assert cost.flops == cost.model_flops == pytest.approx(2 * (once + forward) + cost.sampling_flops)
    both = work(anatomy, parameters, replace(supervised, sampled=sampled, measures_gradients=True), lengths)
    assert both.flops - cost.flops == pytest.approx(2 * once)  # The gradient of the other reward, from whole rollouts.
