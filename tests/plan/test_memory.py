"""The bytes of a plan beside bytes that exist: tensors of real engines, tensors a real forward keeps, and DeepSpeed's estimators."""

from __future__ import annotations

import gc
import json
from dataclasses import replace

import pytest
import torch

from percasym.models.adapt import PARTS, Adaptation, Lora, adapt
from percasym.models.anatomy.base import Anatomy
from percasym.models.anatomy.qwen3vl import qwen3vl
from percasym.models.qwen3vl import Qwen3VL
from percasym.objectives import token_nll
from percasym.objectives.coefficients import coefficients, span_counts
from percasym.objectives.token_nll import TokenNll, supervised
from percasym.plan import memory
from percasym.plan.activations import stack_bytes
from percasym.plan.layout import Layout
from percasym.plan.parameters import Parameters, count
from percasym.types import Span

LAYOUT = Layout(
    num_ranks=1, zero_stage=0, offload=False, computing_bytes=4, checkpointing=False, eager=False, adapters=False, rows=4, step_rows=4,
    measures_gradients=True, eval_rows=4, eval_bytes=4, max_new_tokens=8,
)  # fmt: skip


def anatomy_of(model: torch.nn.Module) -> Anatomy:
    """The anatomy of a live model."""
    return qwen3vl(json.loads(model.config.to_json_string(use_diff=False)), None)


def float_bytes() -> int:
    """Bytes of all float tensors of this process but scalars and ZeRO's bucket, each storage once."""
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if issubclass(type(thing), torch.Tensor) and thing.is_floating_point() and thing.ndim and not thing.is_meta:
            storages[thing.untyped_storage().data_ptr()] = thing.untyped_storage().nbytes()
    return sum(size for size in storages.values() if 256 < size < 10**9)


@pytest.mark.parametrize("lora", [None, Lora(rank=8, targets=PARTS)], ids=["full", "lora"])
@pytest.mark.parametrize(
    ("name", "stage"),
    [("torch", 0), ("deepspeed", 0), ("deepspeed1", 1), ("deepspeed2", 2), ("deepspeed3", 3), ("deepspeed2-offload", 2),
     ("deepspeed3-offload", 3)],
)  # fmt: skip
def test_model_states_are_the_bytes_that_an_engine_holds(name, stage, lora, tiny_qwen, tiny_batch, make_engine):
    batch, before = tiny_batch(), float_bytes()
    model = adapt(tiny_qwen(), Adaptation(lora=lora), Qwen3VL.parts)
    parameters = count(anatomy_of(model), Adaptation(lora=lora))
    engine = make_engine(name, model)
    counts = tuple(span_counts([batch.labels]).tolist())
    for finished in (True, False):  # A whole step first, so that AdamW has its state; then up to before the next.
        for span in (Span.perception, Span.reasoning):
            engine.backward((engine.nll(batch) * coefficients(batch.labels, {span: 1.0}, counts)).sum())
            if finished or span is Span.perception:
                engine.stash(span)
        if finished:
            engine.combine(dict.fromkeys(Span, 0.5))
            engine.step(1e-3)
    engine._updater.gradient()
    layout = replace(LAYOUT, zero_stage=stage, offload=name.endswith("offload"), adapters=lora is not None)
    expected = sum(memory.on_gpu(parameters, layout).values()) + sum(memory.on_host(parameters, layout).values())
    assert float_bytes() - before == pytest.approx(expected, rel=0.06)


@pytest.fixture
def parameters() -> Parameters:
    """A million of the language model, all trained."""
    return Parameters(
        base={"language": 1_000_000, "projector": 0, "vision": 0},
        adapters=dict.fromkeys(PARTS, 0),
        trained={"language": 1_000_000, "projector": 0, "vision": 0},
        multiplied=0,
        resting=0,
    )


@pytest.mark.parametrize("num_gpus", [1, 2, 4, 8])
def test_model_states_are_those_of_deepspeeds_estimators_up_to_known_conventions(num_gpus, parameters):
    """P parameters on N GPUs, in bytes; ours without the gradient that is set aside for a span, which DeepSpeed knows nothing of.

    Stage 2: theirs 2 P (16-bit weights) + 18 P / N (gradients 2 + 4, master 4, AdamW 8).
             Ours   4 P (float32 weights) + 20 P / N: gradients are summed and joined in float32, 4 + 4 in place of 2 + 4.
    Stage 3: theirs 18 P / N (the same; the 16-bit part of the weights is left out) + 4 times the largest layer (gathered).
             Ours   24 P / N: the part of the weights has 4, gradients 4 + 4; what is gathered stands in a line of its own.
    """
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    total, largest = 1_000_000, 5_000

    def ours(stage: int) -> int:
        held = memory.states(parameters, replace(LAYOUT, num_ranks=num_gpus, zero_stage=stage))
        return sum(held.values()) - held["span gradient"]

    _, theirs = estimate_zero2_model_states_mem_needs(total, num_gpus_per_node=num_gpus, cpu_offload=False)
    assert ours(2) == theirs + 2 * total + 2 * total // num_gpus
    _, theirs, _ = estimate_zero3_model_states_mem_needs(
        total, largest, num_gpus_per_node=num_gpus, cpu_offload=False, cpu_offload_params=False
    )
    assert ours(3) == theirs - 4 * largest + 6 * total // num_gpus


@pytest.mark.parametrize("num_gpus", [1, 2, 4])
def test_offloaded_states_are_those_of_deepspeeds_estimators_up_to_known_conventions(num_gpus, parameters):
    """Theirs on the GPU: stage 2 holds the 16-bit weights, 2 P; stage 3 a part of them, 2 P / N, and the largest layer. Ours are float32.

    Theirs in the host's memory: 16 P over all ranks (master 4, gradients 4, AdamW 8). Ours adds 4 P for the gradient of a span, 4 P for
    the sum of gradients beside the master's own, and in stage 2 another 4 P through which the weights come back.
    """
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    total, largest = 1_000_000, 5_000
    layouts = {stage: replace(LAYOUT, num_ranks=num_gpus, zero_stage=stage, offload=True) for stage in (2, 3)}
    gpu = {stage: sum(memory.on_gpu(parameters, layout).values()) for stage, layout in layouts.items()}
    host = {stage: num_gpus * sum(memory.on_host(parameters, layout).values()) for stage, layout in layouts.items()}
    plain = {"num_gpus_per_node": num_gpus, "cpu_offload": True, "additional_buffer_factor": 1.0}
    cpu, theirs = estimate_zero2_model_states_mem_needs(total, **plain)
    assert gpu[2] == 2 * theirs
    assert host[2] == cpu + 12 * total
    cpu, theirs, _ = estimate_zero3_model_states_mem_needs(total, largest, cpu_offload_params=False, **plain)
    assert gpu[3] == 2 * (theirs - 4 * largest)
    assert host[3] == cpu + 8 * total


def test_zero_splits_what_it_says_it_splits(parameters):
    # A million trained parameters on 4 ranks, stage by stage: megabytes of weights, master, gradients, span gradient, AdamW.
    held = [[size / 1e6 for size in memory.states(parameters, replace(LAYOUT, num_ranks=4, zero_stage=s)).values()] for s in range(4)]
    assert held == [[4, 0, 4, 4, 8], [4, 1, 5, 1, 2], [4, 1, 2, 1, 2], [1, 1, 2, 1, 2]]


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


@pytest.fixture(scope="module")
def packaged():
    """The packaged tiny model's configuration with random weights, and a batch of long rows."""
    from percasym.models.checkpoint import OURS, configured
    from percasym.tasks.sudoku.task import Sudoku
    from percasym.types import SampleKey

    family, task = Qwen3VL(), Sudoku(verbosity=2)
    keys = [SampleKey(task=task.name, split="test", seed=0, index=index) for index in range(4)]
    batch = family.collate([family.row(task.sample(key)) for key in keys])
    values = json.loads((OURS / "qwen3vl" / "config.json").read_text())

    def make(attention: str, adaptation: Adaptation):
        from transformers import AutoModelForImageTextToText

        model = AutoModelForImageTextToText.from_config(configured(values), attn_implementation=attention)
        return adapt(model, adaptation, Qwen3VL.parts).train()

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
        expected += stack_bytes(anatomy.vision, 64, **how)
    assert measured == pytest.approx(expected, rel=0.15)


def test_checkpointed_layers_keep_their_inputs(packaged):
    make, batch, anatomy = packaged
    measured = kept_bytes(make("sdpa", Adaptation(freeze=("vision", "projector"), gradient_checkpointing=True)), batch, torch.float32)
    inputs = batch.ids.numel() * anatomy.language.hidden * anatomy.language.layers * 4
    assert measured == pytest.approx(inputs, rel=0.6), "inputs, and what stands outside the layers"
    how = {"rows": 4, "computing": 4, "eager": False}
    plain, checkpointed = (
        stack_bytes(anatomy.language, batch.ids.shape[1], checkpointing=checkpointing, **how) for checkpointing in (False, True)
    )
    assert checkpointed == inputs + plain // anatomy.language.layers


def test_a_chunk_of_logits_is_that_of_the_loss():
    assert memory.CHUNK == token_nll.CHUNK_BYTES


def test_the_key_value_cache_is_that_of_the_decoder(packaged):
    from percasym.plan.lengths import Lengths
    from percasym.rollout.cache import RoomyCache

    make, batch, anatomy = packaged
    model = make("sdpa", Adaptation()).eval()
    cache = RoomyCache(4, batch.ids.shape[1] + 8)
    with torch.inference_mode():
        model.model(**batch.arguments, past_key_values=cache, use_cache=True)
    measured = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.roomy)
    asked = batch.ids.shape[1] - 26.0
    lengths = Lengths(prompt=asked, picture=16, patches=64, perception=10.0, reasoning=300.0, longest=0, source="by hand")
    planned = memory.evaluation(anatomy, count(anatomy, Adaptation()), LAYOUT, lengths)
    assert planned["key-value cache"] == measured


def test_the_loss_on_a_batch_needs_no_more_than_two_chunks_and_the_head(tiny_qwen, tiny_batch):
    vocabulary = 40_000
    model, batch = tiny_qwen(vocabulary=vocabulary, tied=False), tiny_batch()
    loss = TokenNll(model)(supervised(batch.labels), **batch.arguments).sum()
    loss.backward()
    assert model.lm_head.weight.grad.nbytes == 4 * vocabulary * 32  # The fresh gradient of the head that `logits` counts.
