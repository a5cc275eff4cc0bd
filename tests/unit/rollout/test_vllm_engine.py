"""What `percasym.rollout.vllm_engine` does around vLLM: arguments, environment, order of calls, reloading, checks, silence.

A model of three layers is served by a stand-in with the traits of vLLM's CPU backend: layers compute with a copy that is packed after
loading, weights can be loaded only within `reload_weights`, and that repacks no tied head. The same on the real engine: tests/vllm.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.auto import image_processing_auto

from percasym.config.sampling import Vllm
from percasym.models import checkpoint, locate
from percasym.rollout import vllm_engine
from percasym.rollout.vllm_engine import VllmEngine, VllmMismatchError, merged_weights, quiet, reload_weights, servable, served_dtype

WIDTH, WORDS = 4, 8


class Packed:
    """A quant method of vLLM: its layer computes with `packed`, a copy of the weight made after loading."""

    def process_weights_after_loading(self, layer: Any) -> None:
        layer.packed = layer.weight.detach().clone()

    def apply(self, layer: Any, x: Tensor) -> Tensor:
        return x @ layer.packed.T


class Linear(nn.Module):
    """A linear layer of vLLM."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight, self.quant_method, self.input_size_per_partition = weight, Packed(), weight.shape[1]
        self.quant_method.process_weights_after_loading(self)


class Model(nn.Module):
    """An embedding, a projection and a head that is the embedding, as the trainer holds them."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embed_tokens, self.proj = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.normal_(generator=generator)


class Served(nn.Module):
    """The same as vLLM holds them."""

    def __init__(self) -> None:
        super().__init__()
        of = Model(seed=9)
        self.embed_tokens, self.proj, self.lm_head = of.embed_tokens, Linear(of.proj.weight), Linear(of.embed_tokens.weight)
        self.reloading = False

    def load_weights(self, weights: Iterator[tuple[str, Tensor]]) -> set[str]:
        if not self.reloading:
            raise AttributeError("'Parameter' object has no attribute 'weight_loader'")  # As the real one, once it has packed.
        own, loaded = dict(self.named_parameters()), set()
        for name, value in weights:
            own[name].data.copy_(value)
            loaded.add(name)
        return loaded


class Llm:
    """The calls of vllm.LLM that concern weights and memory, recorded in their order."""

    def __init__(self, events: list[str]) -> None:
        self.module, self.events = Served(), events
        self.llm_engine = SimpleNamespace(reset_encoder_cache=lambda: events.append("reset encoder cache"))

    def apply_model(self, function: Any) -> list[Any]:
        return [function(self.module)]

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        assert method == "reload_weights"
        self.events.append("reload")
        self.module.reloading = True
        self.module.load_weights(kwargs["weights_iterator"])
        self.module.reloading = False
        self.module.proj.quant_method.process_weights_after_loading(self.module.proj)

    def sleep(self, level: int) -> None:
        self.events.append(f"sleep {level}")

    def wake_up(self, tags: list[str]) -> None:
        self.events.append(f"wake {tags[0]}")

    def reset_prefix_cache(self) -> None:
        self.events.append("reset prefix cache")

    def generate(self, requests: Any, parameters: Any, use_tqdm: bool) -> list[str]:
        return [f"{request} {use_tqdm}" for request in requests]


@pytest.fixture
def events() -> list[str]:
    return []


@pytest.fixture
def llm(events: list[str], monkeypatch: pytest.MonkeyPatch) -> Llm:
    """The stand-in, started by every engine of the test."""
    made = Llm(events)
    module = ModuleType("vllm")
    module.__version__ = "0.30.0"
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(VllmEngine, "_started", lambda self, model: made)
    return made


def engine(**options: Any) -> VllmEngine:
    return VllmEngine(options=Vllm(max_new_tokens=3, **options), max_new_tokens=3, num_ranks=options.get("tensor_parallel", 1))


def test_a_reload_repacks_every_layer_and_the_tied_head(llm: Llm) -> None:
    new = Model(seed=1)
    reload_weights(llm, new.named_parameters())
    assert torch.equal(llm.module.proj.packed, new.proj.weight)
    assert torch.equal(llm.module.lm_head.packed, new.embed_tokens.weight), "reload_weights alone leaves the old copy"
    assert "load_weights" not in vars(llm.module), "the method of the class serves again"


def test_a_weight_without_a_value_is_named(llm: Llm) -> None:
    weights = {name: value for name, value in Model().named_parameters() if not name.startswith("proj")}
    with pytest.raises(VllmMismatchError, match=r"no values for 1 of its weights, proj\.weight among them"):
        reload_weights(llm, weights.items())


def test_a_head_that_kept_its_old_copy_is_refused(llm: Llm, monkeypatch: pytest.MonkeyPatch) -> None:
    engine().refresh(Model(seed=1))
    monkeypatch.setattr(vllm_engine, "repack_heads", lambda module, loaded: None)
    with pytest.raises(VllmMismatchError, match=r"After a refresh 1 weights of vLLM differ from the trainer's, lm_head\.weight"):
        engine().refresh(Model(seed=2))


@pytest.mark.parametrize(("ranks", "refused"), [(1, True), (2, False)])
def test_weights_are_compared_unless_a_rank_holds_slices(llm: Llm, monkeypatch: pytest.MonkeyPatch, ranks: int, refused: bool) -> None:
    ours = engine(tensor_parallel=ranks)
    monkeypatch.setattr(Llm, "collective_rpc", lambda self, method, kwargs: [kwargs["weights_iterator"]])  # Loads nothing.
    monkeypatch.setattr(vllm_engine, "reload_weights", lambda llm, weights: list(weights))
    if refused:
        with pytest.raises(VllmMismatchError, match="After a refresh"):
            ours.refresh(Model())
    else:
        ours.refresh(Model())


def test_vllm_sleeps_between_rounds_and_wakes_its_cache_after_the_weights(
    llm: Llm, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VllmEngine, "_sleeps", True)
    ours = engine()
    ours.release()  # Nothing has been started.
    ours.refresh(Model())
    assert ours.generate(["a", "b"], []) == ["a False", "b False"]
    events.clear()
    ours.release()
    ours.release()
    with pytest.raises(AssertionError, match="refresh comes before generate"):
        ours.generate([], [])
    ours.refresh(Model(seed=1))
    assert events == ["sleep 1", "wake weights", "reload", "wake kv_cache", "reset prefix cache", "reset encoder cache"]
    ours.generate([], [])


def test_without_a_gpu_nothing_sleeps(llm: Llm, events: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ours = engine()
    ours.refresh(Model())
    ours.release()
    assert events == ["reload", "reset prefix cache", "reset encoder cache"]


@pytest.mark.parametrize("gpu", [False, True])
def test_the_arguments_of_vllm_follow_the_device(gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt that is cut between two steps rewinds its generator, which raises on a CPU."""
    arguments = started(monkeypatch, gpu=gpu)
    assert (arguments["enforce_eager"], arguments["enable_chunked_prefill"], arguments["enable_sleep_mode"]) == (not gpu, gpu, gpu)
    assert arguments["dtype"] == ("bfloat16" if gpu else "float32")
    assert arguments["load_format"] == "auto", "persistent buffers, which no refresh reaches, come from the checkpoint"
    assert Path(arguments["model"], "model.safetensors").is_file()
    assert arguments["tensor_parallel_size"] == 1 and "distributed_executor_backend" not in arguments


def test_many_ranks_run_vllm_in_the_launched_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = started(monkeypatch, num_ranks=8, tensor_parallel=2, sleep=False)
    assert arguments["tensor_parallel_size"] == 2
    assert (arguments["distributed_executor_backend"], arguments["data_parallel_size"]) == ("external_launcher", 1)
    assert arguments["enable_sleep_mode"] is False


def test_a_prompt_has_the_room_of_the_options_or_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = checkpoint.config(locate.packaged("qwen3vl")).get_text_config().max_position_embeddings
    assert limit < 4096 + 3, "the default room would exceed it"
    assert started(monkeypatch)["max_model_len"] == limit
    assert started(monkeypatch, max_prompt_tokens=100)["max_model_len"] == 103


def started(monkeypatch: pytest.MonkeyPatch, *, gpu: bool = True, num_ranks: int = 1, **options: Any) -> dict[str, Any]:
    """The arguments with which an engine starts vLLM for the packaged Qwen3-VL."""
    path = locate.packaged("qwen3vl")
    model: Any = SimpleNamespace(name_or_path=path, config=checkpoint.config(path))
    module = ModuleType("vllm")
    module.LLM, module.__version__ = dict, "0.30.0"
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "vllm", module)
        patch.setattr(image_processing_auto, "_resolve_backend", image_processing_auto._resolve_backend)  # Restored afterwards.
        patch.setattr(torch.cuda, "is_available", lambda: gpu)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
        options = {"max_new_tokens": 3} | options
        return VllmEngine(options=Vllm(**options), max_new_tokens=3, num_ranks=num_ranks)._started(model)


@pytest.mark.parametrize(
    ("precision", "gpu", "native", "dtype"),
    [
        ("auto", False, False, torch.float32),
        ("auto", True, True, torch.bfloat16),
        ("auto", True, False, torch.float32),
        ("bfloat16", False, False, torch.bfloat16),
        ("float32", True, True, torch.float32),
    ],
)
def test_the_type_is_bfloat16_where_the_gpu_computes_it(
    monkeypatch: pytest.MonkeyPatch, precision: str, gpu: bool, native: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or native)
    assert served_dtype(precision) == dtype


def test_vllms_log_is_an_error_log_unless_the_user_sets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("vllm")
    module.__version__ = "0.30.0"
    monkeypatch.setitem(sys.modules, "vllm", module)
    for name in vllm_engine.ENVIRONMENT:
        monkeypatch.setenv(name, "any")  # So that it is restored afterwards.
        monkeypatch.delenv(name)
    vllm_engine.vllm()
    assert {name: os.environ[name] for name in vllm_engine.ENVIRONMENT} == vllm_engine.ENVIRONMENT
    assert os.environ["VLLM_LOGGING_LEVEL"] == "ERROR"
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    vllm_engine.vllm()
    assert os.environ["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0", "another process could not read the trainer's tensors"


@contextmanager
def stdout_on_its_descriptor() -> Iterator[None]:
    """Python's standard output on file descriptor 1, as in a command; under pytest it is a file of its own."""
    with open(1, "w", closefd=False) as stream, redirect_stdout(stream):
        yield


def test_a_quiet_block_writes_nothing(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")
    with stdout_on_its_descriptor():
        print("before")
        with quiet():
            print("INFO of Python")
            os.write(1, b"INFO of C\n")
            os.write(2, b"WARNING of C\n")
        print("after")
    assert capfd.readouterr() == ("before\nafter\n", "")


def test_a_quiet_block_that_fails_shows_what_it_wrote(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "ERROR")

    def fail() -> None:
        with stdout_on_its_descriptor(), quiet():
            print("the cause", flush=True)
            os.write(2, b"and more\n")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert capfd.readouterr() == ("", "the cause\nand more\n")


def test_a_log_that_the_user_asked_for_is_shown(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "INFO")
    with stdout_on_its_descriptor(), quiet():
        print("INFO")
    assert capfd.readouterr() == ("INFO\n", "")


def test_vllm_loads_the_trainers_image_processor_on_pil_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_processing_auto, "_resolve_backend", lambda backend, use_fast, name: backend or "torchvision")
    vllm_engine.use_trainers_images("Ours")
    resolve = image_processing_auto._resolve_backend
    assert [resolve(None, None, "Ours"), resolve(None, None, "Other"), resolve("torchvision", None, "Ours")] == [
        "pil", "torchvision", "torchvision",
    ]  # fmt: skip


def test_a_checkpoint_is_served_as_it_is_or_from_links_beside_a_completed_processor(tmp_path: Path) -> None:
    complete = locate.packaged("internvl35")
    assert servable(complete) == complete
    old = tmp_path / "old"
    shutil.copytree(complete, old)
    (old / "processor_config.json").unlink()
    settings = json.loads((old / "tokenizer_config.json").read_text())
    del settings["model_specific_special_tokens"]
    (old / "tokenizer_config.json").write_text(json.dumps(settings))
    before = {file.name: file.read_bytes() for file in old.iterdir()}
    served = Path(servable(str(old)))
    assert served != old and not checkpoint.lacks_processor(served)
    assert (served / "model.safetensors").resolve() == old / "model.safetensors", "weights are linked"
    assert json.loads((served / "processor_config.json").read_text())["image_seq_length"] == 36
    assert {file.name: file.read_bytes() for file in old.iterdir()} == before, "the checkpoint itself is not touched"


def test_a_partitioned_weight_is_whole_when_it_is_sent_and_one_at_a_time() -> None:
    """As under ZeRO-3: `gather` fills a parameter that is empty otherwise."""
    model: Any = Model()
    whole = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    values = {id(parameter): whole[name] for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.data = torch.empty(0)

    @contextmanager
    def gather(parameter: Tensor) -> Iterator[None]:
        parameter.data = values[id(parameter)].clone()
        yield
        parameter.data.zero_()  # Its memory is used for the next.
        parameter.data = torch.empty(0)

    for name, weight in merged_weights(model, gather):
        assert torch.equal(weight, whole.pop(name))
        assert all(parameter.numel() == 0 for parameter in model.parameters())
    assert not whole
