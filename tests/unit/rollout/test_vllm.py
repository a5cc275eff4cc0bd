"""The vLLM engine against a stand-in with vLLM's interface: unknown arguments are refused, placeholders expanded, tokens drawn.

What only the real engine can show is in tests/vllm.
"""

from __future__ import annotations

import io
import random
import re
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from PIL import Image

from percasym.config.sampling import Vllm
from percasym.config.schema import ConfigError
from percasym.models.adapt import Lora, part_of
from percasym.models.base import Family
from percasym.rollout.native import NativeAnswers
from percasym.rollout.vllm import VllmAnswers, VllmRollouts
from percasym.rollout.vllm_engine import VllmEngine, VllmMismatchError, merged_weights
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
    seed: int | None
    logprobs: int
    logit_bias: dict[int, float]
    stop_token_ids: list[int]
    detokenize: bool


@dataclass(kw_only=True)
class LLM:
    """vllm.LLM on the library's own model: weights come through `load_weights` within `reload_weights`, image features are cached."""

    family: Family
    model: str
    load_format: str
    dtype: str
    gpu_memory_utilization: float
    max_model_len: int
    limit_mm_per_prompt: dict[str, int]
    logprobs_mode: str
    enable_sleep_mode: bool
    enforce_eager: bool
    enable_chunked_prefill: bool
    tensor_parallel_size: int
    not_loaded: str = ""
    """Weights whose name begins so are not loaded, and not reported as loaded."""
    stale: str = ""
    """Weights whose name begins so are reported as loaded and keep their old value."""
    requests: list[Any] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    reloading: bool = False

    def __post_init__(self) -> None:
        assert self.load_format == "auto" and Path(self.model, "config.json").is_file()
        torch.manual_seed(0)  # As vLLM does.
        self.llm_engine = SimpleNamespace(reset_encoder_cache=lambda: self.forgotten.append("encoder"))
        self.held = self.family.load().eval()
        self.held.__class__ = type("Served", (type(self.held),), {"load_weights": lambda module, weights: self.load_weights(weights)})

    def load_weights(self, weights) -> set[str]:
        assert self.reloading, "packed layers have no loader outside of reload_weights"
        own, loaded = dict(self.held.named_parameters()), set()
        for name, value in weights:
            if self.not_loaded and name.startswith(self.not_loaded):
                continue
            if not self.stale or not name.startswith(self.stale):
                own[name].data.copy_(value)  # A KeyError for a name that no checkpoint of this model has.
            loaded.add(name)
        return loaded

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        assert method == "reload_weights"
        self.reloading = True
        self.held.load_weights(kwargs["weights_iterator"])
        self.reloading = False

    def apply_model(self, function) -> list[Any]:
        return [function(self.held)]

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
        generator, tokens, logprobs = torch.Generator().manual_seed(params.seed or 0), [], []
        for _ in range(params.max_tokens):
            row = replace(self.family.prompt(TEXT), ids=(*ids, *tokens), labels=(-1,) * (len(ids) + len(tokens)), inputs=inputs)
            raw = self.held(**self.family.collate([row]).arguments).logits[0, -1].float()
            logits = raw.clone()
            for token, bias in params.logit_bias.items():
                logits[token] += bias
            if params.temperature:
                logits /= params.temperature
            tokens.append(int(torch.multinomial(logits.softmax(-1), 1, generator=generator) if params.temperature else logits.argmax()))
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
    module.LLM, module.SamplingParams, module.__version__ = start, SamplingParams, "0.30.0"
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    return engines


def engine(family: Family, **options: Any) -> VllmRollouts:
    sampling = Vllm(**{"max_new_tokens": TOKENS} | options)
    mode = "raw_logprobs" if sampling.temperature == 1 else "processed_logprobs"
    held = VllmEngine(options=sampling, max_new_tokens=TOKENS, logprobs_mode=mode)
    return VllmRollouts(family=family, sampling=sampling, engine=held)


def moved(model, seed: int = 1):
    """Move every weight by a tenth of its spread."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator) * 0.1 * max(1e-2, parameter.std(correction=0).item())
    return model


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


@pytest.mark.parametrize("part", ["language", pytest.param("projector", marks=pytest.mark.slow), "vision"])
def test_a_weight_that_kept_its_old_value_is_found_in_every_part(family: Family, started: list[LLM], part: str) -> None:
    """Log-probabilities cannot show it: a moved vision tower changes them by 1e-4 to 4e-3 nats."""
    ours, trained = engine(family), family.load().eval()
    ours.refresh(trained)
    started[0].stale = min(name for name, _ in trained.named_parameters() if part_of(name, family.parts) == part)
    ours.refresh(trained)  # An equal value is not stale.
    with pytest.raises(VllmMismatchError, match="After a refresh"):
        ours.refresh(moved(trained))


def test_log_probabilities_are_compared_after_the_first_two_refreshes(
    family: Family, model, prompts: list[Prompt], started: list[LLM]
) -> None:
    ours = engine(family)
    for _ in range(2):
        ours.refresh(model)
        ours.generate(prompts, group_size=1, seed=0)
    ours.refresh(model)
    with torch.no_grad():
        started[0].held.get_input_embeddings().weight.neg_()
    ours.generate(prompts, group_size=1, seed=0)  # The third is not compared; weights are, at every refresh.
    again = engine(family)
    again.refresh(model)
    with torch.no_grad():
        started[1].held.get_input_embeddings().weight.neg_()
    with pytest.raises(VllmMismatchError, match="nats a token on 2 rollouts"):
        again.generate(prompts, group_size=1, seed=0)


def test_starting_leaves_the_random_generators_as_they_were(family: Family, model, started: list[LLM]) -> None:
    torch.manual_seed(123)
    numpy.random.seed(5)
    random.seed(5)
    before = torch.random.get_rng_state(), numpy.random.get_state()[1].tolist(), random.getstate()
    engine(family).refresh(model)
    after = torch.random.get_rng_state(), numpy.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(before[0], after[0]) and before[1:] == after[1:]


def test_a_prompt_has_no_more_room_than_the_model(family: Family, model, started: list[LLM]) -> None:
    engine(family, max_prompt_tokens=10_000).refresh(model)
    engine(family, max_prompt_tokens=100).refresh(model)
    limit = model.config.get_text_config().max_position_embeddings
    assert [one.max_model_len for one in started] == [limit, 100 + TOKENS]


def test_an_adapter_directory_is_served_from_its_base(family: Family, tmp_path: Path, started: list[LLM]) -> None:
    adapted = replace(family, lora=Lora(rank=2)).load()
    family.save(adapted, tmp_path)
    merged = replace(family, path=str(tmp_path)).load()
    engine(family).refresh(merged)
    assert started[0].model == adapted.name_or_path != str(tmp_path)


def test_greedy_answers_are_those_of_the_native_engine(family: Family, model, prompts: list[Prompt], started: list[LLM]) -> None:
    rollouts = engine(family)
    theirs, ours = VllmAnswers(family=family, engine=rollouts.engine), NativeAnswers(family=family)
    forced = family.codec().encode("<perception>12")
    limits: Any = {"max_new_tokens": TOKENS, "batch_size": 1, "advance": lambda num: None}
    for answers in (theirs, ours):
        answers.refresh(model)
    for prefixes in ([(), ()], [forced, ()]):
        expected = ours.answer(prompts, prefixes, **limits)
        assert [one.ids for one in theirs.answer(prompts, prefixes, **limits)] == [one.ids for one in expected]


@pytest.mark.parametrize(("version", "known"), [("0.29.1", False), ("0.30.0", True), ("0.30.2+cpu", True), ("0.31.0", False)])
def test_a_release_that_was_not_tested_is_refused(family: Family, started: list[LLM], version: str, known: bool) -> None:
    sys.modules["vllm"].__version__ = version
    if known:
        engine(family)
    else:
        with pytest.raises(ConfigError, match=rf"vLLM {re.escape(version)} was not tested .* from 0\.30 to below 0\.31"):
            engine(family)


def test_tensor_parallel_divides_the_ranks(started: list[LLM]) -> None:
    options = Vllm(max_new_tokens=1, tensor_parallel=4)
    VllmEngine(options=options, max_new_tokens=1, num_ranks=8)
    with pytest.raises(ConfigError, match=r"rollout\.tensor_parallel=4 does not divide the 2 ranks"):
        VllmEngine(options=options, max_new_tokens=1, num_ranks=2)


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
