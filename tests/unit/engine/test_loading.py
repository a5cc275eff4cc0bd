"""One model for many ranks: the functions on their own; the tests on two real ranks (`loading_on_two_ranks.py`) test_ranks.py starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from percasym.config.schema import ConfigError
from percasym.config.settings import DeepSpeedSettings
from percasym.engine.loading import give_room, on_first_rank, whole_on_host
from percasym.engine.precision import rounded
from percasym.engine.ranks import SINGLE_RANK
from tests.torchrun import run_on_ranks

RANKS_FILE = Path(__file__).with_name("loading_on_two_ranks.py")


@pytest.mark.slow
def test_two_ranks_need_less_memory_than_one_and_a_half_models():
    """glibc keeps freed blocks of less than its threshold, which grows to 32 MB; tensors of large models are above it, these are below."""
    run_on_ranks(RANKS_FILE, options=["-m", "slow"], environment={"MALLOC_MMAP_THRESHOLD_": "1000000"})


def test_a_parameter_on_the_meta_device_stays_the_same_object():
    layer = torch.nn.Linear(2, 3, bias=False, device="meta")
    layer.weight.requires_grad_(False)
    tied = layer.weight
    give_room(layer.weight, torch.device("cpu"))
    assert layer.weight is tied and not tied.is_meta and not tied.requires_grad


def test_a_model_for_saving_is_whole_on_the_first_rank_alone_and_as_before_afterwards():
    model = torch.nn.Linear(2, 1, bias=False)
    part = model.weight.data
    with whole_on_host(model, lambda parameter: torch.ones(3, 2), first=True) as whole:
        assert whole.weight.shape == (3, 2)
    assert model.weight.data is part or torch.equal(model.weight.data, part)
    with whole_on_host(model, lambda parameter: torch.ones(3, 2), first=False) as other:
        assert other.weight.shape == (1, 2)


def test_a_model_for_saving_is_collected_in_the_format_of_its_file():
    """Collected in float32 and then rounded, a model takes one and a half of its sizes on the host."""
    model = torch.nn.Linear(2, 1, bias=False)
    with whole_on_host(model, lambda parameter: torch.full((3, 2), 1 / 3), first=True, dtype=torch.bfloat16) as whole:
        assert whole.weight.dtype == torch.bfloat16
        assert torch.equal(whole.weight, torch.full((3, 2), 1 / 3).bfloat16()), "rounded once"
    assert model.weight.dtype == torch.float32 and model.weight.shape == (1, 2)


def test_what_the_first_rank_cannot_read_is_one_sentence():
    def refuse() -> None:
        raise ValueError("no such file")

    with pytest.raises(ConfigError, match=r"^no such file$"):
        on_first_rank(SINGLE_RANK, refuse)


def test_rounded_weights_need_a_run_that_computes_in_bfloat16_and_zero_3(tiny_qwen):
    with pytest.raises(ConfigError, match=r"engine\.weights=bfloat16 needs engine\.precision=bfloat16, and this run computes in float32"):
        rounded(tiny_qwen(), torch.float32)
    with pytest.raises(ValueError, match=r"engine\.weights=bfloat16 needs engine\.zero_stage=3, got 2"):
        DeepSpeedSettings(zero_stage=2, weights="bfloat16")
