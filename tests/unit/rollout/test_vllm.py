"""The vLLM engine against a stand-in with vLLM's interface: unknown arguments are refused, placeholders expanded, tokens drawn."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from percasym.config.sampling import Vllm
from percasym.config.schema import ConfigError
from percasym.models.adapt import Lora
from percasym.models.base import Family
from percasym.rollout.vllm import VllmMismatchError, VllmRollouts, merged_weights
from percasym.spans.grammar import Grammar
from percasym.types import Prompt, SampleKey, Span

TOKENS = 6


@dataclass(kw_only=True)
class SamplingParams:
    """The options of vllm.SamplingParams that we use, under its names; others are a TypeError."""

    temperature: float
    top_p: float
    top_k: int
    max_tokens: int
    seed: int
    logprobs: int
    logit_bias: dict[int, float]
    stop_token_ids: list[int]
    detokenize: bool


@dataclass(kw_only=True)
class LLM:
    """vllm.LLM on the library's own model: weights come through `load_weights`, image features are cached."""

    family: Family
    model: str
    load_format: str
    dtype: str
    gpu_memory_utilization: float
    max_model_len: int
    limit_mm_per_prompt: dict[str, int]
    logprobs_mode: str
    distributed_executor_backend: str | None
    not_loaded: str = ""
    """Weights whose name begins so are not loaded."""
    requests: list[Any] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert self.load_format == "dummy" and Path(self.model, "config.json").is_file()
        self.llm_engine = SimpleNamespace(reset_encoder_cache=lambda: self.forgotten.append("encoder"))
        self.held = self.family.load().eval()
        with torch.no_grad():
            for parameter in self.held.parameters():
                parameter.normal_(std=0.05)
        self.module = SimpleNamespace(load_weights=self.load_weights, named_parameters=self.held.named_parameters)

    def load_weights(self, weights) -> set[str]:
        own, loaded = dict(self.held.named_parameters()), set()
        for name, value in weights:
            if not self.not_loaded or not name.startswith(self.not_loaded):
                own[name].data.copy_(value)  # A KeyError for a name that no checkpoint of this model has.
                loaded.add(name)
        return loaded

    def apply_model(self, function) -> list[Any]:
        return [function(self.module)]

    def reset_prefix_cache(self) -> None:
        self.forgotten.append("prefix")

    @torch.no_grad()
    def generate(self, prompts, sampling_params, *, use_tqdm: bool) -> list[Any]:
        self.requests += zip(prompts, sampling_params, strict=True)
        return [self.answer(prompt, params) for prompt, params in zip(prompts, sampling_params, strict=True)]

    def answer(self, prompt: dict[str, Any], params: SamplingParams) -> Any:
        ids, inputs = list(prompt["prompt_token_ids"]), {}
        if picture := prompt.get("multi_modal_data", {}).get("image"):
            file = io.BytesIO()
            picture.save(file, "PNG")
            key = SampleKey(task="any", split="test", seed=0, index=0)
            shown = self.family.prompt(Prompt(key=key, image=file.getvalue(), question=""))
            image = self.held.config.image_token_id
            first, last = shown.ids.index(image), len(shown.ids) - shown.ids[::-1].index(image)
            inputs, at = shown.inputs, ids.index(image)
            wrapped = 0 if "image_grid_thw" in inputs else 1  # InternVL's opening and closing tokens come with the features.
            ids[at : at + 1] = shown.ids[first - wrapped : last + wrapped]
        generator, tokens, logprobs = torch.Generator().manual_seed(params.seed), [], []
        for _ in range(params.max_tokens):
            row = replace(self.family.prompt(TEXT), ids=(*ids, *tokens), labels=(-1,) * (len(ids) + len(tokens)), inputs=inputs)
            raw = self.held(**self.family.collate([row]).arguments).logits[0, -1].float()
            logits = raw.clone()
            for token, bias in params.logit_bias.items():
                logits[token] += bias
            logits /= params.temperature
            tokens.append(int(torch.multinomial(logits.softmax(-1), 1, generator=generator)))
            reported = raw if self.logprobs_mode == "raw_logprobs" else logits
            logprobs.append({tokens[-1]: SimpleNamespace(logprob=float(reported.log_softmax(-1)[tokens[-1]]))})
            if tokens[-1] in params.stop_token_ids:
                break
        return SimpleNamespace(prompt_token_ids=ids, outputs=[SimpleNamespace(token_ids=tokens, logprobs=logprobs)])


TEXT = Prompt(key=SampleKey(task="any", split="test", seed=0, index=0), image=None, question="")


@pytest.fixture
def started(family: Family, monkeypatch: pytest.MonkeyPatch) -> list[LLM]:
    """Install the stand-in; the engines that were started are in the list."""
    engines: list[LLM] = []

    def start(**options: Any) -> LLM:
        engines.append(LLM(family=family, **options))
        return engines[-1]

    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = start, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    return engines


def engine(family: Family, **options: Any) -> VllmRollouts:
    return VllmRollouts(family=family, sampling=Vllm(**{"max_new_tokens": TOKENS} | options))


def test_groups_come_with_the_logprobs_of_the_model_in_training(family: Family, model, prompts: list[Prompt], started: list[LLM]) -> None:
    ours = engine(family)
    ours.refresh(model)
    advanced: list[int] = []
    groups = ours.generate(prompts, group_size=2, seed=0, advance=advanced.append)  # Compares them with a forward of `model`.
    assert [len(group) for group in groups] == advanced == [2, 2]
    assert [group[0].prompt for group in groups] == prompts
    assert all(len(r.completion.ids) == len(r.completion.logprobs or ()) == len(r.labels) for group in groups for r in group)
    assert ours.generate(prompts, group_size=2, seed=0) == groups
    ours.generate(prompts, group_size=2, seed=1)
    seeds = [params.seed for _, params in started[0].requests]
    assert seeds[:4] == seeds[4:8] and len(set(seeds)) == 8, "each rollout has a seed of its own, and the same one again"


def test_a_temperature_is_part_of_the_logprobs(family: Family, model, prompts: list[Prompt], started: list[LLM]) -> None:
    ours = engine(family, temperature=0.5)
    ours.refresh(model)
    ours.generate(prompts, group_size=1, seed=0)
    assert started[0].logprobs_mode == "processed_logprobs"
    with pytest.raises(ConfigError, match="no log-probabilities of the whole vocabulary"):
        engine(family, temperature=0.5, top_k=4)


def test_banned_tokens_are_never_sampled(family: Family, model, prompts: list[Prompt], started: list[LLM]) -> None:
    ours = engine(family)
    ours.refresh(model)
    ours.generate(prompts[:1], group_size=1, seed=0)
    ((_, params),) = started[0].requests
    assert params.logit_bias == dict.fromkeys(family.codec().banned, float("-inf"))


def test_a_forced_percept_starts_every_rollout(family: Family, model, prompts: list[Prompt], started: list[LLM]) -> None:
    ours = engine(family)
    ours.refresh(model)
    ((rollout,),) = ours.generate(prompts[:1], group_size=1, seed=0, forced=[Grammar().demonstrate("12/34", "", "")])
    codec = family.codec()
    forced = codec.encode(codec.grammar.perception("12/34"))
    assert list(rollout.completion.ids[: len(forced)]) == forced and len(rollout.completion.ids) > len(forced)
    assert rollout.completion.logprobs is None
    assert rollout.labels[: len(forced)] == (Span.perception,) * len(forced)


def test_a_refresh_resets_the_caches(family: Family, model, started: list[LLM]) -> None:
    ours = engine(family)
    ours.refresh(model)
    ours.refresh(model)
    assert len(started) == 1
    assert started[0].forgotten == ["prefix", "encoder"] * 2


def test_a_weight_that_was_not_loaded_is_refused(family: Family, model, started: list[LLM]) -> None:
    ours = engine(family)
    ours.refresh(model)
    started[0].not_loaded = "model.language_model.norm"
    with pytest.raises(VllmMismatchError, match=r"no values for 1 of its weights, model\.language_model\.norm\.weight"):
        ours.refresh(model)


def test_weights_that_are_not_the_trainers_are_noticed_after_the_first_update(
    family: Family, model, prompts: list[Prompt], started: list[LLM]
) -> None:
    ours = engine(family)
    ours.refresh(model)
    ours.generate(prompts, group_size=1, seed=0)
    ours.refresh(model)
    with torch.no_grad():
        started[0].held.get_input_embeddings().weight.neg_()
    with pytest.raises(VllmMismatchError, match="nats a token on 2 rollouts"):
        ours.generate(prompts, group_size=1, seed=0)


def test_a_prompt_with_other_tokens_is_refused(
    family: Family, model, prompts: list[Prompt], started: list[LLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = engine(family)
    ours.refresh(model)
    stock = type(family).vllm_prompt
    monkeypatch.setattr(
        type(family), "vllm_prompt", lambda self, prompt: ((*stock(self, prompt)[0], stock(self, prompt)[0][-1]), stock(self, prompt)[1])
    )
    with pytest.raises(VllmMismatchError, match="read a prompt of"):
        ours.generate(prompts[:1], group_size=1, seed=0)


def test_without_vllm_the_choice_is_refused_with_the_command(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)  # An import of it raises ImportError.
    with pytest.raises(ConfigError, match=r'pip install "percasym\[vllm\]"'):
        engine(family)


def test_a_picture_is_served_at_the_size_that_training_sees(family: Family, prompts: list[Prompt]) -> None:
    for prompt in prompts:
        _, picture = family.vllm_prompt(prompt)
        assert isinstance(picture, Image.Image)
        file = io.BytesIO()
        picture.save(file, "PNG")
        trained, served = family.prompt(prompt), family.prompt(replace(prompt, image=file.getvalue()))
        torch.testing.assert_close(served.inputs["pixel_values"], trained.inputs["pixel_values"])


def test_adapters_are_merged_without_touching_the_model(family: Family) -> None:
    adapted = replace(family, lora=Lora(rank=2)).load().eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.1)
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    plain = family.load().eval()
    weights = dict(merged_weights(adapted))
    assert weights.keys() == dict(plain.named_parameters()).keys()
    plain.load_state_dict(weights, strict=False)
    row = family.collate([family.prompt(TEXT)])
    with torch.no_grad():
        torch.testing.assert_close(plain(**row.arguments).logits, adapted(**row.arguments).logits, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in adapted.state_dict().items())
