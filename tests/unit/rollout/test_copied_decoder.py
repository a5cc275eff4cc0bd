"""Sampling with a copy of the decoder (`rollout.precision`): fused, adapters merged, in float32 or bfloat16, beside the model itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from percasym.config.sampling import Native
from percasym.config.schema import ConfigError
from percasym.models import qwen3_copy
from percasym.models.adapt import Lora
from percasym.models.base import Family
from percasym.models.qwen3 import attend
from percasym.models.qwen3_copy import attend_rounded
from percasym.rollout.agreement import logprob_gap
from percasym.rollout.cache import GRANULE, RoomyLayer
from percasym.rollout.native import NativeRollouts
from percasym.types import Prompt, Rollout

TOKENS = 24


def engine(family: Family, precision: str) -> NativeRollouts:
    return NativeRollouts(family=family, sampling=Native(max_new_tokens=TOKENS, batch_size=16, precision=precision))


def sampled(family: Family, model, prompts: list[Prompt], precision: str) -> list[Rollout]:
    """Rollouts of prompts of unlike length, so that the batch has a mask."""
    rollouts = engine(family, precision)
    rollouts.refresh(model)
    return [rollout for group in rollouts.generate(prompts, group_size=3, seed=0) for rollout in group]


def adapted(family: Family) -> tuple[Family, torch.nn.Module]:
    family = replace(family, lora=Lora(rank=2, targets=("language",)))
    model = family.load().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
    return family, model


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_copy_in_float32_samples_the_same_tokens(family: Family, model, prompts: list[Prompt], kind: str) -> None:
    family, model = (family, model) if kind == "full" else adapted(family)
    own, copied = sampled(family, model, prompts, "auto"), sampled(family, model, prompts, "float32")
    assert [one.completion.ids for one in copied] == [one.completion.ids for one in own]
    assert logprob_gap(model, family, copied, 1.0) < 1e-5


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_copy_in_bfloat16_differs_by_rounding(family: Family, model, prompts: list[Prompt], kind: str) -> None:
    family, model = (family, model) if kind == "full" else adapted(family)
    rollouts = sampled(family, model, prompts, "bfloat16")
    assert 1e-5 < logprob_gap(model, family, rollouts, 1.0) < 3e-2, "8 bits of mantissa; 5e-3 on the packaged Qwen3-VL"
    assert sampled(family, model, prompts, "bfloat16") == rollouts


def test_a_copy_has_the_weights_of_its_refresh(family: Family, prompts: list[Prompt]) -> None:
    model = family.load().eval()
    rollouts = engine(family, "float32")
    rollouts.refresh(model)
    with torch.no_grad():
        for parameter in model.get_submodule("model.language_model").parameters():
            parameter += 0.3 * parameter.std(correction=0) * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))

    def gap() -> float:
        groups = rollouts.generate(prompts, group_size=2, seed=0)
        return logprob_gap(model, family, [rollout for group in groups for rollout in group], 1.0)

    assert gap() > 1e-3, "a copy does not follow the model"
    rollouts.refresh(model)
    assert gap() < 1e-5
    rollouts.release()
    assert rollouts._copy is None


@pytest.mark.parametrize("length", [GRANULE - 1, GRANULE, GRANULE + 1])
def test_rounded_attention_is_attention(length: int) -> None:
    generator = torch.Generator().manual_seed(0)
    layer = RoomyLayer(2 * GRANULE)
    keys, values = (torch.randn(3, 2, length, 8, generator=generator) for _ in range(2))
    layer.update(keys, values)
    queries = torch.randn(3, 2, 4, 8, generator=generator)
    mask = torch.rand(3, 1, 1, length, generator=generator) < 0.7
    for own in (None, mask):
        torch.testing.assert_close(attend_rounded(queries, *layer.rounded(), length, own), attend(queries, keys, values, own))


def test_a_decoder_that_cannot_be_copied_is_refused(family: Family, model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qwen3_copy, "supported_decoder", lambda model: None)
    with pytest.raises(ConfigError, match=r"rollout\.precision=bfloat16 copies a dense Qwen3 decoder .* Use rollout\.precision=auto\."):
        engine(family, "bfloat16").refresh(model)
    with pytest.raises(ValueError, match=r"rollout\.precision must be one of auto, float32, bfloat16, got 'int8'"):
        engine(family, "int8")
