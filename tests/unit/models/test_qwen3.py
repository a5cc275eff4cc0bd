"""The quick step of a Qwen3 decoder beside the model's own forward."""

from __future__ import annotations

import pytest
import torch

from percasym.models.qwen3 import Qwen3Step, rms_norm_with
from percasym.rollout.cache import RoomyCache
from percasym.rollout.loop import decoding_step, forward_step

TEXT = 58  # Ids below are text.


@pytest.fixture(params=["qwen3vl", "internvl35"])
def family_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(tiny_model):
    return tiny_model().eval()


@torch.inference_mode()
def spoken(model, step, num_steps: int = 4) -> torch.Tensor:
    """[steps, B, hidden] after two prompts of 5 and 3 tokens, both padded to 5 slots; any token follows."""
    draw, cache = torch.Generator().manual_seed(0), RoomyCache(2, 16)
    prompts = torch.randint(0, TEXT, (2, 5), generator=draw)
    model.model.language_model(input_ids=prompts, position_ids=torch.arange(5).expand(2, -1), past_key_values=cache, use_cache=True)
    mask = torch.tensor([[True] * 16, [True] * 3 + [False] * 2 + [True] * 11])
    hidden = []
    for at in range(num_steps):
        tokens = torch.randint(0, TEXT, (2,), generator=draw)
        hidden.append(step(tokens, torch.tensor([5, 3]) + at, cache, mask[:, : 6 + at]))
    return torch.stack(hidden)


def num_axes(family_name: str) -> int:
    return 3 if family_name == "qwen3vl" else 1


def test_a_quick_step_is_the_forward_of_one_token(model, family_name: str) -> None:
    quick = Qwen3Step.of(model, 16)
    assert quick is not None
    with torch.inference_mode():
        torch.testing.assert_close(spoken(model, quick), spoken(model, forward_step(model, num_axes(family_name))), rtol=1e-5, atol=1e-5)


def test_padding_is_masked(model, family_name: str) -> None:
    quick = Qwen3Step.of(model, 16)
    assert quick is not None
    unmasked = spoken(model, lambda tokens, positions, cache, mask: quick(tokens, positions, cache, None))
    masked = spoken(model, quick)
    torch.testing.assert_close(unmasked[:, 0], masked[:, 0], rtol=1e-5, atol=1e-5)  # Its prompt has no padding.
    assert (unmasked[:, 1] - masked[:, 1]).abs().max() > 1e-3


def test_adapters_count(model) -> None:
    from peft import LoraConfig

    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False))
    quick = Qwen3Step.of(model.eval(), 16)
    assert quick is not None
    with_adapters = spoken(model, quick)
    torch.testing.assert_close(with_adapters, spoken(model, forward_step(model, 1)), rtol=1e-5, atol=1e-5)
    model.disable_adapters()
    assert (spoken(model, quick) - with_adapters).abs().max() > 1e-3


def test_a_decoder_of_another_kind_takes_the_forward(model) -> None:
    model.model.language_model.config._attn_implementation = "eager"
    assert Qwen3Step.of(model, 16) is None
    assert not isinstance(decoding_step(model, num_axes=1, num_positions=16), Qwen3Step)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_is_that_of_the_definition(dtype: torch.dtype) -> None:
    # mean of squares (9 + 16) / 2 = 12.5, and 0.5 more: sqrt(13) = 3.6056; 3 / 3.6056 * 2 = 1.6641, 4 / 3.6056 * 10 = 11.094
    found = rms_norm_with(torch.tensor([2.0, 10.0]), 0.5)(torch.tensor([[3.0, 4.0]], dtype=dtype))
    torch.testing.assert_close(found, torch.tensor([[1.6641, 11.094]]), rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=0)
