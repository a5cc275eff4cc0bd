"""bfloat16 is for computing; what is trained stays float32."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from percasym.config.paradigm import Sft
from percasym.config.schema import ConfigError
from percasym.config.settings import DeepSpeedSettings, TorchSettings
from percasym.engine.deepspeed import MAX_WEIGHTS_FRAC, require_room_to_decode
from percasym.engine.precision import inference, lowered, require_bfloat16_factors, rounded, stored_bytes
from percasym.engine.torch import torch_engine
from percasym.models.adapt import Adaptation, Lora, adapt
from percasym.models.qwen3vl import Qwen3VL
from percasym.objectives.coefficients import coefficients, span_counts
from percasym.objectives.onednn import with_onednn
from percasym.objectives.token_nll import TokenNll, supervised
from percasym.rollout.native import decode
from percasym.types import Span
from tests.processor import needs_bfloat16

BF16 = torch.bfloat16
MODULES = ("percasym.engine.torch", "percasym.engine.deepspeed")
ENGINES = ["torch", "deepspeed", "deepspeed2", "deepspeed3"]


@pytest.fixture
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in bfloat16 here, though this CPU may only emulate it."""
    for module in MODULES:
        monkeypatch.setattr(f"{module}.compute_dtype", lambda precision, device: BF16)


def stepped(engine, batch, lr: float):
    counts = tuple(span_counts([batch.labels]).tolist())
    engine.backward(engine.loss(batch, coefficients(batch.labels, dict.fromkeys(Span, 0.5), counts))[0])
    engine.step(lr)
    with engine.gathered_weights() as model:
        return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", ENGINES)
def test_weights_gradients_and_optimizer_stay_float32(name, bfloat16, make_engine, tiny_qwen, tiny_batch):
    engine, start = make_engine(name, tiny_qwen(tied=False)), tiny_qwen(tied=False).state_dict()
    after = stepped(engine, tiny_batch(rows=8), lr=1e-6)
    assert {parameter.dtype for parameter in after.values()} == {torch.float32}
    state = engine._updater.state_dict()["state"].values()
    assert {value.dtype for values in state for value in values.values() if torch.is_tensor(value)} == {torch.float32}
    # A step of 1e-6 on weights of about 0.1 lies below bfloat16's resolution there (0.0004): only a float32 master keeps it.
    old, new = (torch.cat([tensors[key].flatten() for key in after if after[key].ndim == 2]) for tensors in (start, after))
    assert (new != old).float().mean() > 0.8
    assert (new.to(BF16) == old.to(BF16)).float().mean() > 0.95


@pytest.mark.parametrize("name", ENGINES)
def test_frozen_layers_under_adapters_have_the_compute_type(name, bfloat16, make_engine, tiny_qwen, tiny_batch):
    model = adapt(tiny_qwen(tied=False), Adaptation(lora=Lora(rank=2)), Qwen3VL.parts)
    after = stepped(make_engine(name, model), tiny_batch(rows=8), lr=1e-3)
    assert {parameter.dtype for key, parameter in after.items() if "lora" in key} == {torch.float32}
    resting = {key for key, parameter in after.items() if parameter.dtype == BF16}
    assert {
        "lm_head.weight",
        "model.language_model.layers.0.mlp.up_proj.base_layer.weight",
        "model.visual.blocks.0.mlp.linear_fc1.bias",
    } <= resting
    assert not any("norm" in key or "embed" in key for key in resting)


@pytest.mark.parametrize("tied", [True, False])
def test_the_compute_type_of_frozen_layers_changes_no_bit_of_a_loss(tied, tiny_qwen, tiny_batch):
    batch = tiny_batch()
    at, losses = supervised(batch.labels), []
    for held in (torch.float32, BF16):
        torch.manual_seed(1)
        model = adapt(tiny_qwen(tied=tied), Adaptation(lora=Lora(rank=2)), Qwen3VL.parts)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        losses.append(TokenNll(lowered(model, held), dtype=BF16)(at, **batch.arguments))
    assert torch.equal(*losses)


def test_a_model_without_adapters_is_left_alone(tiny_qwen):
    model = adapt(tiny_qwen(), Adaptation(freeze=("vision",)), Qwen3VL.parts)
    assert {parameter.dtype for parameter in lowered(model, BF16).parameters()} == {torch.float32}


def test_answers_are_decoded_with_weights_of_any_type(blank_family_rows):
    family, rows = blank_family_rows
    model = lowered(family.load(), BF16).eval()
    with inference(model, torch.device("cpu")):
        answers = decode(model, family, rows, max_new_tokens=4, batch_size=2)
    assert [len(answer.ids) for answer in answers] == [4, 4]


def test_flash_attention_evaluates_in_bfloat16_and_is_refused_in_float32(tiny_qwen):
    model, cpu = tiny_qwen(), torch.device("cpu")
    model.config._attn_implementation = "flash_attention_2"
    with inference(model, cpu):
        assert torch.get_autocast_dtype("cpu") == BF16 and torch.is_autocast_enabled("cpu")
    with pytest.raises(ConfigError, match="flash_attention_2 has no float32 kernel"):
        lowered(model, torch.float32)


@pytest.fixture
def blank_family_rows():
    """The packaged tiny family with fresh adapters, and two prompts."""
    from percasym.tasks.sudoku.task import Sudoku
    from percasym.types import SampleKey

    family, task = Qwen3VL(lora=Lora(rank=2)), Sudoku()
    samples = [task.sample(SampleKey(task=task.name, split="test", seed=0, index=index)) for index in range(2)]
    return family, [family.prompt(sample.prompt) for sample in samples]


@pytest.mark.parametrize("lora", [None, Lora(rank=2)], ids=["whole", "adapters"])
def test_stored_bytes_are_those_of_the_weights_that_an_engine_keeps(lora, tiny_qwen):
    model = adapt(tiny_qwen(), Adaptation(lora=lora), Qwen3VL.parts)
    planned, all_rounded = (stored_bytes(model, BF16, all_rounded=value) for value in (False, True))
    assert planned == sum(parameter.nbytes for parameter in lowered(model, BF16).parameters())
    assert all_rounded == sum(parameter.nbytes for parameter in rounded(model, BF16).parameters())


def test_adapters_are_not_refused_for_float32_weights_that_they_do_not_have(bfloat16, tiny_qwen, monkeypatch):
    """ZeRO-3 gathers 33 GB for an evaluation of adapters on 14B, whose frozen layers are in bfloat16; 60 GB were counted."""
    model, settings = adapt(tiny_qwen(), Adaptation(lora=Lora(rank=2)), Qwen3VL.parts), DeepSpeedSettings(zero_stage=3)
    needed = stored_bytes(model, BF16, all_rounded=False)
    assert needed < 0.8 * 4 * sum(parameter.numel() for parameter in model.parameters())
    for there, fits in ((needed / MAX_WEIGHTS_FRAC + 1, True), (needed / MAX_WEIGHTS_FRAC - 1, False)):
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, there=there: SimpleNamespace(total_memory=there))
        if fits:
            require_room_to_decode(model, settings, torch.device("cuda"))
        else:
            with pytest.raises(ConfigError, match=r"engine\.zero_stage=3 trains in parts, but evaluating gathers"):
                require_room_to_decode(model, settings, torch.device("cuda"))


@needs_bfloat16
def test_on_a_cpu_a_step_may_multiply_in_bfloat16_and_an_evaluation_stays_float32(tiny_qwen, tiny_batch):
    models, paradigm = [with_onednn(tiny_qwen()) for _ in range(2)], Sft(steps=2, batch_size=8, micro_batch_size=8, lr=1e-3)
    plain, rounding = (
        torch_engine(model, settings=TorchSettings(cpu_matmul=dtype), paradigm=paradigm, device=torch.device("cpu"))
        for model, dtype in zip(models, ("float32", "bfloat16"), strict=True)
    )
    batch = tiny_batch(rows=32)
    expected, found = plain.nll(batch), rounding.nll(batch)
    assert found.dtype == torch.float32
    assert 1e-5 < (found - expected).abs().max() < 0.05
    with plain.gathered_weights() as one, rounding.gathered_weights() as other, torch.no_grad():
        assert torch.equal(*(model(**batch.arguments).logits for model in (one, other)))
    assert torch.equal(rounding.nll(batch), found)
    after = stepped(rounding, batch, lr=1e-3)
    assert {parameter.dtype for parameter in after.values()} == {torch.float32}


def test_bfloat16_products_are_refused_where_no_cpu_makes_them(monkeypatch):
    with pytest.raises(ConfigError, match=r"engine\.cpu_matmul=bfloat16 is for a CPU, and this run is on cuda\. Use engine\.precision="):
        require_bfloat16_factors(torch.device("cuda"))
    monkeypatch.setattr("percasym.objectives.onednn.AVAILABLE", False)
    with pytest.raises(ConfigError, match=r"needs a processor that multiplies it \(AVX512_BF16 or AMX\), and this one does not\."):
        require_bfloat16_factors(torch.device("cpu"))
    with pytest.raises(ValueError, match=r"multiplies in bfloat16 already\. Set it, or engine\.cpu_matmul=bfloat16\."):
        TorchSettings(precision="bfloat16", cpu_matmul="bfloat16")
