"""The configured parts are trained, and adapters are stored in peft's format."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch.testing import assert_close

from percasym.models.adapt import PARTS, Adaptation, Lora, adapt, linear_layers, part_of
from percasym.models.locate import CheckpointError
from percasym.models.qwen3vl import Qwen3VL
from percasym.objectives.coefficients import coefficients, span_counts
from percasym.objectives.token_nll import TokenNll, supervised
from percasym.types import Span

NAMES = Qwen3VL.parts
P, R = Span.perception, Span.reasoning
BOTH = {P: 0.5, R: 0.5}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A blank checkpoint directory."""
    from percasym.models.architecture import write_blank

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("blank")
    write_blank(path, ["Solve the Sudoku."])
    return path


def of_parts(model, parts):
    return {name for name, _ in model.named_parameters() if part_of(name, NAMES) in parts}


def step(engine, batch):
    counts = tuple(span_counts([batch.labels]).tolist())
    engine.backward(engine.loss(batch, coefficients(batch.labels, BOTH, counts))[0])
    engine.step(1e-3)


def snapshot(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def test_every_parameter_has_a_part_and_every_part_a_parameter(tiny_qwen):
    model = tiny_qwen(tied=False)
    assert {part: bool(of_parts(model, {part})) for part in PARTS} == dict.fromkeys(PARTS, True)
    assert of_parts(model, {"projector"}) == {name for name, _ in model.named_parameters() if "merger" in name}


def test_a_module_that_no_part_names_is_refused():
    with pytest.raises(ValueError, match=r"model\.audio\.weight belongs to none of the model's parts"):
        part_of("model.audio.weight", NAMES)


@pytest.mark.parametrize("engine_name", ["torch", "deepspeed"])
@pytest.mark.parametrize("freeze", [("vision",), ("vision", "projector"), ("language",)])
def test_frozen_parts_keep_their_bits_and_all_others_move(engine_name, freeze, tiny_qwen, tiny_batch, make_engine):
    model = adapt(tiny_qwen(tied=False), Adaptation(freeze=freeze), NAMES)
    before = snapshot(model)
    step(make_engine(engine_name, model), tiny_batch(rows=8))
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == set(before) - of_parts(model, freeze)


@pytest.mark.parametrize("engine_name", ["torch", "deepspeed"])
@pytest.mark.parametrize("targets", [("language",), ("projector", "vision"), PARTS])
def test_adapters_of_the_targets_move_and_nothing_else_does(engine_name, targets, tiny_qwen, tiny_batch, make_engine):
    bare = tiny_qwen(tied=False)
    chosen = set(linear_layers(bare, targets, NAMES))
    model = adapt(bare, Adaptation(lora=Lora(rank=2, targets=targets)), NAMES)
    engine, before = make_engine(engine_name, model), snapshot(model)
    step(engine, tiny_batch(rows=8))  # B is zero at the start, so A has no gradient at the first step.
    step(engine, tiny_batch(rows=8))
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {f"{name}.lora_{factor}.default.weight" for name in chosen for factor in "AB"}
    assert "lm_head" not in chosen


def test_a_fresh_adapter_changes_no_loss(tiny_qwen, tiny_batch):
    batch = tiny_batch()
    plain, adapted = tiny_qwen(), adapt(tiny_qwen(), Adaptation(lora=Lora()), NAMES)
    losses = [TokenNll(model)(supervised(batch.labels), **batch.arguments) for model in (plain, adapted)]
    assert torch.equal(*losses)


@pytest.mark.parametrize("lora", [None, Lora(rank=2, dropout=0.5, targets=PARTS)], ids=["full", "lora"])
@pytest.mark.parametrize("freeze", [(), ("vision",)])
def test_checkpointed_gradients_are_the_plain_ones(lora, freeze, tiny_qwen, tiny_batch):
    if lora and freeze:
        lora = Lora(rank=2, dropout=0.5, targets=("language", "projector"))
    gradients, kept = [], []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        model = adapt(tiny_qwen(), Adaptation(lora=lora, freeze=freeze, gradient_checkpointing=checkpointing), NAMES).train()
        saved = 0

        def count(value, *, where=checkpointing):
            nonlocal saved
            saved += value.nbytes
            return value

        torch.manual_seed(2)  # Dropout draws the same masks in both.
        batch = tiny_batch()
        with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
            loss = TokenNll(model)(supervised(batch.labels), **batch.arguments).sum()
        loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None})
        kept.append(saved)
    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys() and plain
    for name in plain:
        assert_close(checkpointed[name], plain[name], rtol=1e-5, atol=1e-7)
    assert kept[1] < 0.6 * kept[0], "checkpointing keeps less for the backward pass"


def test_a_frozen_tower_is_not_run_backward_under_checkpointing(tiny_qwen, tiny_batch):
    model = adapt(tiny_qwen(), Adaptation(freeze=("vision", "projector"), gradient_checkpointing=True), NAMES).train()
    features = []
    model.model.visual.register_forward_hook(lambda module, inputs, output: features.append(output.pooler_output))
    batch = tiny_batch()
    TokenNll(model)(supervised(batch.labels), **batch.arguments).sum().backward()
    assert not any(part.requires_grad for part in features[0])


def trained_lora(directory, targets=("language", "projector")):
    family = Qwen3VL(path=str(directory), lora=Lora(rank=4, targets=targets))
    torch.manual_seed(0)
    model = family.load()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return family, model.eval()


def losses(model, batch):
    with torch.inference_mode():
        return TokenNll(model)(supervised(batch.labels), **batch.arguments)


@pytest.fixture
def real_batch(directory):
    from percasym.tasks.sudoku.task import Sudoku
    from percasym.types import SampleKey

    family, task = Qwen3VL(path=str(directory)), Sudoku()
    keys = [SampleKey(task=task.name, split="test", seed=0, index=index) for index in range(2)]
    return family.collate([family.row(task.sample(key)) for key in keys])


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # Called by peft.
def test_a_lora_run_leaves_an_adapter_that_plain_peft_loads(directory, real_batch, tmp_path):
    from peft import PeftModel
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer

    family, model = trained_lora(directory)
    family.save(model, tmp_path)
    files = {path.name for path in tmp_path.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "preprocessor_config.json", "config.json"} <= files
    assert not files & {"model.safetensors", "pytorch_model.bin"}, "the base is not copied"
    kept = json.loads((tmp_path / "adapter_config.json").read_text())
    assert kept["base_model_name_or_path"] == str(directory)
    assert {name for name in dict(model.named_modules()) if re.fullmatch(kept["target_modules"], name)} == set(
        linear_layers(Qwen3VL(path=str(directory)).load(), ("language", "projector"), NAMES)
    )
    base = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, tmp_path).eval()
    expected = losses(model, real_batch)
    assert not torch.allclose(losses(Qwen3VL(path=str(directory)).load(), real_batch), expected, rtol=1e-3), "the adapters matter"
    assert_close(losses(loaded.get_base_model(), real_batch), expected, rtol=1e-5, atol=1e-5)  # Plain peft, plain layers.
    assert AutoTokenizer.from_pretrained(tmp_path) and AutoImageProcessor.from_pretrained(tmp_path, backend="pil")


def test_the_final_adapter_of_a_run_is_a_base_for_the_next(directory, real_batch, tmp_path):
    family, model = trained_lora(directory)
    family.save(model, tmp_path / "final")
    again = Qwen3VL(path=str(tmp_path / "final"))
    whole = again.load()
    assert not any("lora" in name for name, _ in whole.named_parameters())
    assert {parameter.dtype for parameter in whole.parameters()} == {torch.float32}
    assert all(parameter.requires_grad for parameter in whole.parameters())
    assert_close(losses(whole.eval(), real_batch), losses(model, real_batch), rtol=1e-4, atol=1e-5)
    again.save(whole, tmp_path / "whole")
    assert (tmp_path / "whole" / "model.safetensors").exists(), "merged weights are saved whole"


def test_adapters_may_be_trained_on_adapters(directory, real_batch, tmp_path):
    family, model = trained_lora(directory)
    family.save(model, tmp_path / "first")
    second, adapted = trained_lora(tmp_path / "first", targets=("vision",))
    second.save(adapted, tmp_path / "second")
    expected = losses(adapted, real_batch)
    assert_close(losses(Qwen3VL(path=str(tmp_path / "second")).load().eval(), real_batch), expected, rtol=1e-4, atol=1e-5)


def test_an_adapter_without_its_base_says_so(directory, tmp_path):
    family, model = trained_lora(directory)
    family.save(model, tmp_path)
    kept = tmp_path / "adapter_config.json"
    kept.write_text(kept.read_text().replace(str(directory), "/nowhere/to/be/found"))
    with pytest.raises(CheckpointError, match="were trained on /nowhere/to/be/found, which is not there"):
        Qwen3VL(path=str(tmp_path)).load()


def test_greedy_answers_of_adapters_are_those_of_the_merged_model(directory, tmp_path):
    from percasym.rollout.native import decode
    from percasym.tasks.sudoku.task import Sudoku
    from percasym.types import SampleKey

    family, model = trained_lora(directory)
    family.save(model, tmp_path)
    task = Sudoku()
    rows = [family.prompt(task.sample(SampleKey(task=task.name, split="test", seed=0, index=index)).prompt) for index in range(2)]
    answers = [decode(one.eval(), family, rows, max_new_tokens=12, batch_size=2) for one in (model, Qwen3VL(path=str(tmp_path)).load())]
    assert [answer.ids for answer in answers[0]] == [answer.ids for answer in answers[1]]


@pytest.mark.parametrize("engine_name", ["torch", "deepspeed", "deepspeed1"])
def test_a_checkpoint_keeps_the_adapter_only_and_training_goes_on_from_it(engine_name, tiny_qwen, tiny_batch, make_engine, tmp_path):
    def fresh(seed):
        torch.manual_seed(seed)
        return make_engine(engine_name, adapt(tiny_qwen(), Adaptation(lora=Lora(rank=2)), NAMES))

    engine = fresh(1)
    step(engine, tiny_batch(seed=1))
    engine.save(tmp_path)
    assert {path.name for path in (tmp_path / "model").iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    assert not (tmp_path / "model" / "model.safetensors").exists()
    step(engine, tiny_batch(seed=2))
    resumed = fresh(9)
    resumed.load(tmp_path)
    step(resumed, tiny_batch(seed=2))
    for name, parameter in resumed.model.named_parameters():
        assert torch.equal(parameter, engine.model.get_parameter(name)), name


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_attention_backend_is_the_one_asked_for(attention, directory):
    model = Qwen3VL(path=str(directory), attention=attention).load()
    assert model.config._attn_implementation == attention == model.config.vision_config._attn_implementation


def test_a_backend_that_is_not_installed_is_one_sentence(directory, monkeypatch):
    monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: False)
    with pytest.raises(CheckpointError, match=r"model.attention=flash_attention_2 needs the flash-attn package and a GPU"):
        Qwen3VL(path=str(directory), attention="flash_attention_2").load()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Lora(rank=0), "model.lora.rank must be at least 1, got 0."),
        (lambda: Lora(alpha=0), "model.lora.alpha must be at least 1, got 0."),
        (lambda: Lora(dropout=1.0), "model.lora.dropout must lie in [0, 1), got 1.0."),
        (lambda: Lora(targets=("head",)), "model.lora.targets names 'head'; the parts are language, projector, vision."),
        (lambda: Lora(targets=()), "model.lora.targets names no part to adapt; "),
        (lambda: Qwen3VL(freeze=("eyes",)), "model.freeze names 'eyes'; the parts are language, projector, vision."),
        (lambda: Qwen3VL(freeze=PARTS), "model.freeze=[language,projector,vision] leaves nothing to train."),
        (lambda: Qwen3VL(freeze=("vision",), lora=Lora(targets=PARTS)), "model.freeze and model.lora.targets both name vision."),
        (lambda: Qwen3VL(attention="flash"), "model.attention must be one of sdpa, eager, flash_attention_2, got 'flash'."),
    ],
)
def test_a_wrong_choice_is_one_sentence(make, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        make()
