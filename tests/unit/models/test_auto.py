"""`model=auto` on random tiny checkpoints of five families that percasym does not name: inputs, losses, decoding, files and refusals."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from shutil import copytree

import pytest
import torch
from PIL import Image

from percasym.cli import main as cli
from percasym.data.export import export
from percasym.models import checkpoint
from percasym.models.adapt import PARTS, Lora, names_of
from percasym.models.auto import Auto
from percasym.models.base import Batch
from percasym.models.locate import CheckpointError
from percasym.models.processor import processor
from percasym.objectives.token_nll import TokenNll, supervised
from percasym.rollout.native import decode
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import Prompt, Sample, SampleKey, Span
from tests.other_families import FAMILIES, write_family

NAMES = [
    pytest.param(name, marks=pytest.mark.skipif(name == "smolvlm" and not find_spec("num2words"), reason="pip install num2words"))
    for name in FAMILIES
]
TASK = Sudoku(verbosity=0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


@pytest.fixture
def family(request: pytest.FixtureRequest, folders: Path) -> Auto:
    folder = folders / request.param
    if not folder.exists():
        write_family(folder, request.param)
    return Auto(path=str(folder))


each_family = pytest.mark.parametrize("family", NAMES, indirect=True)


def samples(num: int, *sides: tuple[int, int]) -> list[Sample]:
    """Demonstrations, with blank pictures of these sizes in turn where any are given."""
    found = [TASK.sample(SampleKey(task=TASK.name, split="train_sft", seed=0, index=index)) for index in range(num)]
    for index, sample in enumerate(found):
        if sides:
            out = io.BytesIO()
            Image.effect_noise(sides[index % len(sides)], 90).convert("RGB").save(out, "PNG")
            found[index] = replace(sample, prompt=replace(sample.prompt, image=out.getvalue()))
    return found


def nll(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    with torch.no_grad():
        return TokenNll(model)(supervised(batch.labels), **batch.arguments)


@each_family
def test_a_prompt_is_what_the_checkpoints_own_processor_makes(family: Auto) -> None:
    (sample,) = samples(1, (40, 60))
    picture = Image.open(io.BytesIO(sample.prompt.image)).convert("RGB")
    content = [{"type": "image", "image": picture}, {"type": "text", "text": sample.prompt.question}]
    own = processor(family.checkpoint)
    text = own.tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)
    wanted = own(images=[picture], text=[text], return_tensors="pt", add_special_tokens=False)
    row = family.prompt(sample.prompt)
    assert list(row.ids) == wanted["input_ids"][0].tolist()
    assert torch.equal(row.inputs["pixel_values"], wanted["pixel_values"])
    assert set(row.labels) == {-1}


@each_family
def test_a_row_ends_with_the_token_that_ends_a_turn(family: Auto, request: pytest.FixtureRequest) -> None:
    (sample,) = samples(1)
    row, codec = family.row(sample), family.codec()
    supervised_ids = [token for token, label in zip(row.ids, row.labels, strict=True) if label >= 0]
    ends = {"gemma3": "<end_of_turn>", "idefics3": "<end_of_utterance>", "smolvlm": "<end_of_utterance>"}
    name = Path(family.checkpoint).name
    assert codec.tokenizer.convert_ids_to_tokens([supervised_ids[-1]]) == [ends.get(name, "<|im_end|>")]
    text = b"".join(codec.pieces(supervised_ids[:-1])).decode()
    assert text == sample.demonstration.perception + sample.demonstration.reasoning
    seen = [token for token, label in zip(row.ids, row.labels, strict=True) if label == Span.perception]
    assert b"".join(codec.pieces(seen)).decode().rstrip("\n") == sample.demonstration.perception


@each_family
def test_the_loss_of_a_row_does_not_depend_on_the_rows_beside_it(family: Auto) -> None:
    model = family.load().eval()
    rows = [family.row(sample) for sample in samples(3, (40, 60), (96, 32), (32, 32))]
    whole = family.collate(rows)
    together = nll(model, whole)
    for place, row in enumerate(rows):
        alone = nll(model, family.collate([row]))
        torch.testing.assert_close(together[place, : len(row.ids)], alone[0], atol=2e-4, rtol=1e-4)
    halves = Batch.joined([family.collate(rows[:1]), family.collate(rows[1:])])
    torch.testing.assert_close(nll(model, halves)[:, : together.shape[1]], together, atol=2e-4, rtol=1e-4)
    cut = whole.until(Span.perception)
    perception = cut.labels == Span.perception
    torch.testing.assert_close(nll(model, cut)[perception], together[:, : cut.ids.shape[1]][perception], atol=2e-4, rtol=1e-4)


@each_family
def test_the_picture_reaches_the_model_and_a_prompt_may_have_none(family: Auto) -> None:
    model = family.load().eval()
    one, other = (family.row(sample) for sample in samples(2, (40, 60)))
    assert one.inputs["pixel_values"].shape == other.inputs["pixel_values"].shape
    swapped = type(one)(ids=one.ids, labels=one.labels, inputs={**one.inputs, "pixel_values": other.inputs["pixel_values"]})
    assert float((nll(model, family.collate([one])) - nll(model, family.collate([swapped]))).abs().max()) > 1e-4
    (sample,) = samples(1)
    blind = family.prompt(Prompt(key=sample.prompt.key, image=None, question=sample.prompt.question))
    mixed = family.collate([blind.followed_by(one.ids[-5:], [1] * 5), one])
    torch.testing.assert_close(nll(model, mixed)[1, : len(one.ids)], nll(model, family.collate([one]))[0], atol=2e-4, rtol=1e-4)


@each_family
def test_greedy_decoding_is_that_of_generate(family: Auto) -> None:
    model, codec = family.load().eval(), family.codec()
    rows = [family.prompt(sample.prompt) for sample in samples(3, (40, 60), (96, 32), (32, 32))]
    found = decode(model, family, rows, max_new_tokens=12, batch_size=3)
    for row, completion in zip(rows, found, strict=True):
        batch = family.collate([row])
        aligned = {name: value for name, value in batch.aligned.items() if name != "position_ids"}
        ids = model.generate(
            input_ids=batch.ids, attention_mask=batch.mask, **batch.inputs, **aligned, max_new_tokens=12, do_sample=False,
            eos_token_id=codec.end, suppress_tokens=codec.banned,
        )  # fmt: skip
        assert list(completion.ids) == ids[0, len(row.ids) :].tolist()


@each_family
def test_what_is_saved_is_loaded_with_the_same_inputs_and_losses(family: Auto, tmp_path: Path) -> None:
    model, (sample,) = family.load().eval(), samples(1, (40, 60))
    family.save(model, tmp_path)
    again = Auto(path=str(tmp_path))
    one, other = family.row(sample), again.row(sample)
    assert (one.ids, one.labels) == (other.ids, other.labels)
    assert again.image_settings() == family.image_settings()
    batch = family.collate([one])
    torch.testing.assert_close(nll(again.load().eval(), again.collate([other])), nll(model, batch))


@each_family
def test_parts_can_be_frozen_and_adapted(family: Auto) -> None:
    frozen = Auto(path=family.path, freeze=("vision", "projector")).load()
    trained = {part: {frozen.get_parameter(name).requires_grad for name in names_of(frozen, part, family.parts)} for part in PARTS}
    assert trained == {"language": {True}, "projector": {False}, "vision": {False}}
    adapted = Auto(path=family.path, lora=Lora(rank=2, targets=("language",))).load()
    names = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert names and all("lora_" in name for name in names)
    assert not any(name.startswith(prefix) for name in names for prefix in family.parts["vision"])


@each_family
def test_an_audit_of_a_chat_file(family: Auto, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = export(TASK, split="train_sft", seed=0, num=12, out=tmp_path, format="messages")
    words = ["task=jsonl", f"task.path={path}", "model=auto", f"model.path={family.path}", "--samples", "2"]
    assert cli.main(["audit", *words]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert "first step on 2 samples" in out and "weight of NGDiff" in out
    assert all(f"  {part}" in out for part in PARTS)


@pytest.fixture
def qwen(folders: Path) -> Path:
    folder = folders / "qwen2_5_vl"
    if not folder.exists():
        write_family(folder, "qwen2_5_vl")
    return folder


def test_rows_that_the_model_cannot_take_are_row_errors(qwen: Path) -> None:
    check = Auto(path=str(qwen)).limits()
    assert check == Auto(path=str(qwen)).limits()
    texts = {"query": "How many?", "perception": "1", "reasoning": "So.", "answer": "1"}
    check(texts, (64, 64))
    with pytest.raises(ValueError, match=r"its query holds <\|im_end\|>, a control token of the model"):
        check(texts | {"query": "a <|im_end|>"}, (64, 64))
    with pytest.raises(ValueError, match=r"its image has 908 x 4 pixels, and the processor of .* refuses the prompt \("):
        check(texts, (908, 4))
    with pytest.raises(ValueError, match=r"it has [\d,]+ tokens with its image, and the model has 2,048 positions."):
        check(texts | {"reasoning": "1 " * 3000}, (64, 64))


def test_what_a_family_without_a_name_lacks_is_said(qwen: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["plan", "task=sudoku", "model=auto", f"model.path={qwen}"]) == 2
    assert capsys.readouterr().err == (
        "percasym plan counts the tensors of model=qwen3vl and model=internvl35, and Auto has no list of its tensors (the method anatomy). "
        "Try one step instead.\n"
    )
    assert cli.main(["evaluate", str(qwen), "model=auto", "task=sudoku", "evaluation.engine=vllm"]) == 2
    assert "vLLM answers for model=qwen3vl and model=internvl35, not for Auto." in capsys.readouterr().err
    assert cli.main(["audit", "task=sudoku", "model=auto"]) == 2
    assert capsys.readouterr().err.startswith("model=auto needs model.path: a Hugging Face directory or a hub id")


def test_a_named_family_points_to_model_auto(qwen: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["audit", "task=sudoku", f"model.path={qwen}"]) == 2
    said = capsys.readouterr().err
    assert said == f"{qwen} is of type qwen2_5_vl, and model=qwen3vl reads qwen3_vl or qwen3_vl_moe. Set model=auto.\n"


def edited(folder: Path, target: Path, text: dict[str, object] | None = None, **changes: object) -> Auto:
    """A copy of a checkpoint with another configuration, at the top level or of its text model."""
    copytree(folder, target)
    config = json.loads((target / "config.json").read_text()) | changes
    config["text_config"].update(text or {})
    (target / "config.json").write_text(json.dumps(config))
    return Auto(path=str(target))


def test_models_that_would_be_trained_on_another_loss_are_refused(
    qwen: Path, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match=r"is of type qwen3, which is no vision-language model of transformers"):
        edited(qwen, tmp_path / "text", model_type="qwen3").load()
    gemma = folders / "gemma3"
    if not gemma.exists():
        write_family(gemma, "gemma3")
    scaled = checkpoint.model(str(qwen))
    own = scaled.forward

    def forward(**inputs):
        output = own(**inputs)
        output.logits = output.logits * 0.5
        return output

    scaled.forward = forward
    monkeypatch.setattr(checkpoint, "model", lambda path, attention: scaled)
    with pytest.raises(CheckpointError, match=r"differ by .* from those of a plain head: it scales or caps them"):
        Auto(path=str(qwen)).load()
    with pytest.raises(CheckpointError, match=r"has layers of type linear_attention, and model=auto trains decoders with attention layers"):
        edited(gemma, tmp_path / "linear", {"layer_types": ["linear_attention", "full_attention"]}).parts  # noqa: B018


def test_a_checkpoint_without_a_chat_template_is_refused(qwen: Path, tmp_path: Path) -> None:
    family = edited(qwen, tmp_path / "bare")
    (tmp_path / "bare" / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match=r"has no chat template \(or several\), and model=auto needs one"):
        family.codec()
