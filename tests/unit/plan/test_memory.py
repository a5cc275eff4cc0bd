"""The bytes of a plan beside bytes that exist: tensors of real engines, tensors a real forward keeps, and DeepSpeed's estimators."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import accumulate, product
from pathlib import Path

import pytest
import torch

from percasym.models.adapt import PARTS, Adaptation, adapt
from percasym.objectives import token_nll
from percasym.objectives.token_nll import TokenNll, supervised
from percasym.plan import memory
from percasym.plan.inputs import GREEDY, NARROWED, SAMPLED, Parameters, count_parameters
from percasym.plan.memory import stack_bytes
from percasym.rollout import cache
from tests.torchrun import run_on_ranks

ROOT = Path(__file__).resolve().parents[3]


STAGES = {"torch": 0, "deepspeed": 0, "deepspeed1": 1, "deepspeed2": 2, "deepspeed3": 3, "deepspeed2-offload": 2, "deepspeed3-offload": 3}
STAGES |= {"deepspeed3-rounded": 3, "deepspeed3-rounded-offload": 3}
SLOW = ("deepspeed1", "deepspeed3-offload", "deepspeed3-rounded-offload")
QUICK = {("qwen3vl", name) for name in STAGES if name not in SLOW} | {("internvl35", "deepspeed3")}
"""What `make test` runs of all families and engines: the bytes of an engine follow from the parameters, whatever the family."""


@pytest.mark.parametrize("lora", ["full", "lora"], indirect=True)
@pytest.mark.parametrize(
    ("family_name", "name"),
    [
        pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow, id="-".join(case))
        for case in product(("qwen3vl", "internvl35"), STAGES)
    ],
)
def test_model_states_are_the_bytes_that_an_engine_holds(name, lora, states_held, layout):
    parameters, held = states_held(name)
    layout = replace(layout, zero_stage=STAGES[name], offload=name.endswith("offload"), adapters=lora is not None)
    if "rounded" in name:
        layout = replace(layout, stored_bytes=2, computing_bytes=2)
    expected = sum(memory.on_gpu(parameters, layout).values()) + sum(memory.on_host(parameters, layout).values())
    assert sum(held.values()) == pytest.approx(expected, rel=0.06)


@pytest.fixture
def parameters() -> Parameters:
    """A million of the language model, all trained."""
    return Parameters(
        base={"language": 1_000_000, "projector": 0, "vision": 0},
        adapters=dict.fromkeys(PARTS, 0),
        trained={"language": 1_000_000, "projector": 0, "vision": 0},
        multiplied=0,
        frozen_linear=0,
    )


@pytest.mark.parametrize("num_gpus", [1, 2, 4, 8])
def test_model_states_are_those_of_deepspeeds_estimators_up_to_known_conventions(num_gpus, parameters, layout):
    """P parameters on N GPUs, in bytes; ours without the gradient that is set aside for a span, which DeepSpeed knows nothing of.

    Stage 2: theirs 2 P (16-bit weights) + 18 P / N (gradients 2 + 4, master 4, AdamW 8).
             Ours   4 P (float32 weights) + 20 P / N: gradients are summed and joined in float32, 4 + 4 in place of 2 + 4.
    Stage 3: theirs 18 P / N (the same; the 16-bit part of the weights is left out) + 4 times the largest layer (gathered).
             Ours   20 P / N: weights, master and gradient have 4 each, AdamW 8; what is gathered stands in a line of its own.
             Ours with weights in bfloat16: 18 P / N, of which they have 2 and the gradient 4.
    """
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    total, largest = 1_000_000, 5_000

    def ours(stage: int, stored: int = 4) -> int:
        held = memory.states(parameters, replace(layout, num_ranks=num_gpus, zero_stage=stage, stored_bytes=stored))
        return sum(held.values()) - held["span gradient"]

    _, theirs = estimate_zero2_model_states_mem_needs(total, num_gpus_per_node=num_gpus, cpu_offload=False)
    assert ours(2) == theirs + 2 * total + 2 * total // num_gpus
    _, theirs, _ = estimate_zero3_model_states_mem_needs(
        total, largest, num_gpus_per_node=num_gpus, cpu_offload=False, cpu_offload_params=False
    )
    assert ours(3) == theirs - 4 * largest + 2 * total // num_gpus
    assert ours(3, stored=2) == theirs - 4 * largest


@pytest.mark.parametrize("num_gpus", [1, 2, 4])
def test_offloaded_states_are_those_of_deepspeeds_estimators_up_to_known_conventions(num_gpus, parameters, layout):
    """Theirs on the GPU: stage 2 holds the 16-bit weights, 2 P; stage 3 a part of them, 2 P / N, and the largest layer. Ours are float32.

    Theirs in the host's memory: 16 P over all ranks (master 4, gradients 4, AdamW 8). Ours adds 4 P for the gradient of a span, 4 P for
    the sum of gradients beside the master's own, and in stage 2 another 4 P through which the weights come back.
    """
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    total, largest = 1_000_000, 5_000
    layouts = {stage: replace(layout, num_ranks=num_gpus, zero_stage=stage, offload=True) for stage in (2, 3)}
    gpu = {stage: sum(memory.on_gpu(parameters, offloaded).values()) for stage, offloaded in layouts.items()}
    host = {stage: num_gpus * sum(memory.on_host(parameters, offloaded).values()) for stage, offloaded in layouts.items()}
    plain = {"num_gpus_per_node": num_gpus, "cpu_offload": True, "additional_buffer_factor": 1.0}
    cpu, theirs = estimate_zero2_model_states_mem_needs(total, **plain)
    assert gpu[2] == 2 * theirs
    assert host[2] == cpu + 12 * total
    cpu, theirs, _ = estimate_zero3_model_states_mem_needs(total, largest, cpu_offload_params=False, **plain)
    assert gpu[3] == 2 * (theirs - 4 * largest)
    assert host[3] == cpu + 8 * total
    rounded = replace(layouts[3], stored_bytes=2)
    assert sum(memory.on_gpu(parameters, rounded).values()) == theirs - 4 * largest
    assert num_gpus * sum(memory.on_host(parameters, rounded).values()) == cpu + 6 * total, "the span gradient has 2 bytes"


def test_zero_splits_what_it_says_it_splits(parameters, layout):
    # A million trained parameters on 4 ranks, stage by stage: megabytes of weights, master, gradients, span gradient, AdamW.
    held = [[size / 1e6 for size in memory.states(parameters, replace(layout, num_ranks=4, zero_stage=s)).values()] for s in range(4)]
    assert held == [[4, 0, 4, 4, 8], [4, 1, 2, 1, 2], [4, 1, 2, 1, 2], [1, 1, 1, 1, 2]]


@pytest.mark.slow
def test_two_ranks_hold_what_is_planned_under_every_stage():
    run_on_ranks(Path(__file__).with_name("memory_on_two_ranks.py"))


def kept_bytes(model: torch.nn.Module, batch, dtype: torch.dtype) -> int:
    """Bytes of all that a forward of the trunk keeps for its backward pass, parameters and rounded parameters apart."""
    shapes = {parameter.shape for parameter in model.parameters()} | {
        parameter.T.shape for parameter in model.parameters() if parameter.ndim == 2
    }
    storages = {}

    def note(tensor):
        if tensor.shape not in shapes:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", dtype, enabled=dtype != torch.float32),
    ):
        kept = model.model(**batch.arguments, use_cache=False).last_hidden_state
    assert kept.requires_grad
    return sum(storages.values())


@pytest.fixture
def packaged(family_name):
    """The packaged tiny model's configuration with random weights, a batch of long rows, and what the model is made of."""
    from percasym.config.resolve import composed
    from percasym.models import locate
    from percasym.models.checkpoint import config_from_dict
    from percasym.tasks.sudoku.task import Sudoku
    from percasym.types import SampleKey

    family, task = composed([f"model={family_name}"], ROOT / "conf").family, Sudoku(verbosity=2)
    keys = [SampleKey(task=task.name, split="test", seed=0, index=index) for index in range(4)]
    batch = family.collate([family.row(task.sample(key)) for key in keys])
    values = json.loads((Path(locate.packaged(family_name)) / "config.json").read_text())

    def make(attention: str, adaptation: Adaptation, layers: int | None = None):
        from transformers import AutoModelForImageTextToText

        config = config_from_dict(values)
        if layers:
            config.text_config.num_hidden_layers = layers
        model = AutoModelForImageTextToText.from_config(config, attn_implementation=attention)
        return adapt(model, adaptation, family.parts).train()

    return make, batch, family.anatomy()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("freeze", [(), ("vision", "projector")], ids=["all", "language"])
def test_activations_are_the_bytes_that_a_forward_keeps(attention, dtype, freeze, packaged):
    make, batch, anatomy = packaged
    measured = kept_bytes(make(attention, Adaptation(freeze=freeze)), batch, dtype)
    how = {"rows": 4, "computing": dtype.itemsize, "checkpointing": False, "eager": attention == "eager"}
    expected = stack_bytes(anatomy.language, batch.ids.shape[1], **how)
    if not freeze:
        expected += stack_bytes(anatomy.vision, anatomy.image_tokens(64, 64).patches, **how)
    # Copies that autocast makes of inputs are not planned one by one.
    assert measured == pytest.approx(expected, rel=0.15 if dtype == torch.float32 else 0.17)


def test_checkpointed_layers_keep_their_inputs(packaged):
    make, batch, anatomy = packaged
    adaptation = Adaptation(freeze=("vision", "projector"), gradient_checkpointing=True)
    few, many = (kept_bytes(make("sdpa", adaptation, layers), batch, torch.float32) for layers in (1, anatomy.language.layers))
    inputs = batch.ids.numel() * anatomy.language.hidden * anatomy.language.layers * 4
    assert many - few == pytest.approx(inputs * (1 - 1 / anatomy.language.layers), rel=0.05), "what stands outside the layers cancels"
    how = {"rows": 4, "computing": 4, "eager": False}
    plain, checkpointed = (
        stack_bytes(anatomy.language, batch.ids.shape[1], checkpointing=checkpointing, **how) for checkpointing in (False, True)
    )
    assert checkpointed == inputs + plain // anatomy.language.layers


def test_the_plan_has_the_constants_of_the_loss_and_the_cache():
    assert token_nll.CHUNK_BYTES["cuda"] == memory.CHUNK
    assert memory.GRANULE == cache.GRANULE


def test_the_key_value_cache_is_that_of_the_decoder(packaged, layout):
    from percasym.plan.inputs import Lengths
    from percasym.rollout.cache import RoomyCache

    make, batch, anatomy = packaged
    model = make("sdpa", Adaptation()).eval()
    held = RoomyCache(4, batch.ids.shape[1] + 8)
    with torch.inference_mode():
        model.model(**batch.arguments, past_key_values=held, use_cache=True)
    measured = sum(layer.keys.nbytes + layer.values.nbytes for layer in held.roomy)
    picture = anatomy.image_tokens(64, 64)
    prompt = batch.ids.shape[1] - 10.0 - picture.tokens
    lengths = Lengths(
        prompt=prompt, picture=picture.tokens, patches=picture.patches, perception=10.0, reasoning=300.0, longest=0, source="by hand"
    )
    planned = memory.evaluation(anatomy, count_parameters(anatomy, Adaptation()), layout, lengths)
    assert planned["key-value cache"] == measured


def test_the_loss_on_a_batch_needs_no_more_than_two_chunks_and_the_head(tiny_model, tiny_batch):
    vocabulary = 40_000
    model, batch = tiny_model(vocabulary=vocabulary, tied=False), tiny_batch()
    loss = TokenNll(model)(supervised(batch.labels), **batch.arguments).sum()
    loss.backward()
    assert model.lm_head.weight.grad.nbytes == 4 * vocabulary * 32  # The fresh gradient of the head that `logits` counts.


@pytest.mark.parametrize("words", [[], ["engine.precision=bfloat16"], ["model.lora.rank=8"]], ids=["float32", "bfloat16", "lora"])
def test_the_reference_is_the_copy_that_rl_holds(family_name, words):
    from percasym.app.recipes.rl import RlRecipe
    from percasym.config.resolve import composed
    from percasym.engine.ranks import SINGLE_RANK
    from percasym.plan.plan import plan

    given = [f"model={family_name}", "model.freeze=[]", "paradigm=rl", "paradigm.kl=0.1", "engine.precision=float32", *words]
    settings, cost = composed(given, ROOT / "conf"), None
    reference = RlRecipe(settings, torch.device("cpu"), SINGLE_RANK)._reference(AdapterModel())
    held = 0
    if reference is not AdapterModel.nll_without_adapters:
        module = reference.args[0]
        held = sum(parameter.nbytes for name, parameter in module.named_parameters() if not name.endswith("bias"))
        held += sum(4 * parameter.numel() for name, parameter in module.named_parameters() if name.endswith("bias"))  # A few bytes less.
    cost = plan(settings)
    assert cost.training["reference"] == cost.evaluation["reference"] == cost.rollouts["reference"] == held
    assert (held == 0) == ("model.lora.rank=8" in words)


def test_under_zero_3_rl_shards_its_reference(monkeypatch):
    from percasym.app.recipes import rl
    from percasym.config.resolve import composed
    from percasym.engine.ranks import SINGLE_RANK

    chosen = {}
    monkeypatch.setattr(rl, "loaded", lambda family, ranks: "the initial model")
    for name in ("sharded_reference", "whole_reference"):
        monkeypatch.setattr(rl, name, lambda model, name=name, **options: chosen.setdefault(name, (model, options["temperature"])))
    for stage in (2, 3):
        words = ["paradigm=rl", "paradigm.kl=0.1", "rollout.temperature=0.7", "engine=deepspeed", f"engine.zero_stage={stage}"]
        rl.RlRecipe(composed(words, ROOT / "conf"), torch.device("cpu"), SINGLE_RANK)._reference(AdapterModel())
    assert chosen == dict.fromkeys(["whole_reference", "sharded_reference"], ("the initial model", 0.7))
    assert list(chosen) == ["whole_reference", "sharded_reference"], "stage 2, then stage 3"


class AdapterModel:
    """An engine that can leave out the adapters."""

    @staticmethod
    def nll_without_adapters(batch):
        raise AssertionError("is not called")


def test_a_checkpointed_step_keeps_no_rounded_copy_of_the_weights(packaged):
    """Bytes of bfloat16 copies of the decoder's weights that a forward keeps: none with checkpointing, all without."""
    make, batch, anatomy = packaged
    kept, cached = {}, []
    for checkpointing in (True, False):
        model = make("sdpa", Adaptation(freeze=("vision", "projector"), gradient_checkpointing=checkpointing))
        model.model.register_forward_hook(lambda *_: cached.append(torch.is_autocast_cache_enabled()))
        shapes = {parameter.shape for parameter in model.parameters() if parameter.ndim == 2}
        shapes |= {shape[::-1] for shape in shapes}
        storages = {}

        def note(tensor, shapes=shapes, storages=storages):
            if tensor.dtype == torch.bfloat16 and tensor.shape in shapes:
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            TokenNll(model, dtype=torch.bfloat16)(supervised(batch.labels), **batch.arguments)
        kept[checkpointing] = sum(storages.values())
    planned = 2 * sum(weights.numel for weights in anatomy.weights if weights.part == "language" and weights.kind == "linear")
    assert kept[True] < 0.1 * planned, "a state of the shape of a weight at most"
    assert kept[False] == pytest.approx(planned, rel=0.1)
    assert cached == [False, False], "autocast would keep what it rounded to the end of the forward"


@pytest.mark.parametrize(
    ("options", "planned"), [({}, SAMPLED), ({"top_p": 0.9}, NARROWED), ({"top_k": 5}, NARROWED), (None, GREEDY)], ids=str
)
def test_choosing_a_token_allocates_at_most_what_a_logit_is_given(options, planned):
    from random import Random

    from torch.profiler import ProfilerActivity, profile

    from percasym.config.sampling import Native
    from percasym.rollout.loop import Greedy, Sampler

    rows, vocabulary, banned = 8, 20_000, torch.tensor([0])
    logits = torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(0))
    if options is None:
        chooser = Greedy(banned=banned)
    else:
        draws = [Random(row) for row in range(rows)]
        chooser = Sampler(sampling=Native(max_new_tokens=1, **options), banned=banned, draws=draws)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        chooser.choose(logits, range(rows))
    moves = [event.nbytes() for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    peak = logits.nbytes + max(accumulate(moves))
    assert peak <= 1.01 * planned * rows * vocabulary
    assert peak > 0.6 * planned * rows * vocabulary
