"""Prompts, pictures and batches of InternVL3.5 beside the stock implementation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from percasym.models import checkpoint, locate
from percasym.models.internvl35 import InternVL35, num_tiles
from percasym.models.locate import CheckpointError
from percasym.models.qwen3vl import Qwen3VL
from percasym.tasks.base import prompt_as_text
from percasym.tasks.canvas import Look
from percasym.tasks.graph_coloring.task import GraphColoring
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import UNSUPERVISED, Sample, SampleKey, Span

TASKS = (Sudoku(look=Look(image_px=64)), GraphColoring(look=Look(image_px=96)), Sudoku(look=Look(image_px=200)))


def sample(task: Sudoku | GraphColoring, index: int = 0) -> Sample:
    return task.sample(SampleKey(task=task.name, split="test", seed=0, index=index))


@pytest.fixture(scope="module")
def family(blank_internvl35: Path) -> InternVL35:
    return InternVL35(path=str(blank_internvl35))


@pytest.fixture(scope="module")
def model(family: InternVL35) -> torch.nn.Module:
    return family.load().eval()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.name}{task.look.image_px}")
def test_a_picture_is_one_tile_of_36_tokens_however_large_it_was_drawn(family: InternVL35, task: Sudoku | GraphColoring) -> None:
    one = sample(task)
    row = family.prompt(one.prompt)
    text = b"".join(family.codec().pieces(row.ids)).decode()
    # 96 x 96 pixels in patches of 8, shuffled 2 x 2 into one feature: 6 x 6 of them.
    expected = f"<|im_start|>user\n<img>{'<IMG_CONTEXT>' * 36}</img>\n{one.prompt.question}<|im_end|>\n<|im_start|>assistant\n"
    assert text == expected
    assert row.inputs["pixel_values"].shape == (1, 3, 96, 96) and set(row.inputs) == {"pixel_values"}


def test_the_image_setting_is_the_one_of_prompts(family: InternVL35) -> None:
    assert family.image_settings() == {"height": 96, "width": 96, "tokens": 36}
    assert Qwen3VL().image_settings() == {"min_pixels": 64**2, "max_pixels": 256**2, "pixels_a_token": 16**2}


def test_a_tiny_checkpoint_is_tiny(model: torch.nn.Module) -> None:
    assert 1e6 < sum(parameter.numel() for parameter in model.parameters()) < 3e6


def test_a_processor_that_would_cut_tiles_is_told_not_to(family: InternVL35, blank_internvl35: Path, tmp_path: Path) -> None:
    for file in blank_internvl35.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    settings |= {"crop_to_patches": True, "size": {"height": 48, "width": 48}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    prompt = sample(TASKS[2]).prompt
    theirs, ours = InternVL35(path=str(tmp_path)).prompt(prompt), family.prompt(prompt)
    assert torch.equal(theirs.inputs["pixel_values"], ours.inputs["pixel_values"]) and theirs.ids == ours.ids


def test_what_is_saved_has_what_vllms_processor_reads(family: InternVL35, model: torch.nn.Module, tmp_path: Path) -> None:
    """final/ was once written without: the processor of transformers then raises AttributeError, and vLLM does not start."""
    family.save(model, tmp_path)
    settings = json.loads((tmp_path / "processor_config.json").read_text())
    assert settings == {"processor_class": "InternVLProcessor", "image_seq_length": 36}
    named = json.loads((tmp_path / "tokenizer_config.json").read_text())["model_specific_special_tokens"]
    assert set(named) == {"start_image_token", "end_image_token", "context_image_token", "video_token"}
    assert not checkpoint.lacks_processor(tmp_path)
    (tmp_path / "processor_config.json").unlink()
    assert checkpoint.lacks_processor(tmp_path), "as it was written before"


def test_only_the_response_is_supervised(family: InternVL35) -> None:
    one = sample(TASKS[0])
    row, prompt = family.row(one), family.prompt(one.prompt)
    assert set(row.labels[: len(prompt.ids)]) == {UNSUPERVISED} and set(row.labels[len(prompt.ids) :]) == set(Span)


def test_logits_equal_those_of_the_stock_call_with_its_mask(family: InternVL35, model: torch.nn.Module) -> None:
    with_text = sample(TASKS[0], 1)
    batch = family.collate(
        [family.row(sample(TASKS[0])), family.row(replace(with_text, prompt=prompt_as_text(with_text))), family.row(sample(TASKS[1]))]
    )
    with torch.no_grad():
        ours = model(**batch.arguments).logits
        stock = model(input_ids=batch.ids, attention_mask=batch.mask, **batch.inputs).logits
    real = batch.mask.bool()
    torch.testing.assert_close(ours[real], stock[real], rtol=1e-4, atol=1e-4)


def test_a_batch_gives_each_row_what_it_has_alone(family: InternVL35, model: torch.nn.Module) -> None:
    rows = [family.row(sample(TASKS[0])), family.row(sample(TASKS[1]))]
    with torch.no_grad():
        together = model(**family.collate(rows).arguments).logits
        for i, row in enumerate(rows):
            alone = model(**family.collate([row]).arguments).logits[0]
            torch.testing.assert_close(together[i, : len(row.ids)], alone, rtol=1e-4, atol=1e-4)


def test_image_tokens_must_equal_image_features(family: InternVL35) -> None:
    row = family.prompt(sample(TASKS[0]).prompt)
    at = row.ids.index(model_token(family, "<IMG_CONTEXT>"))
    with pytest.raises(ValueError, match="35 image tokens but 36 image features"):
        family.collate([replace(row, ids=row.ids[:at] + row.ids[at + 1 :], labels=row.labels[1:])])
    with pytest.raises(ValueError, match="36 image tokens but 0 image features"):
        family.collate([replace(row, inputs={})])
    with pytest.raises(ValueError, match="36 image tokens but 9 image features"):
        family.collate([replace(row, inputs={"pixel_values": torch.zeros(1, 3, 48, 48)})])


def model_token(family: InternVL35, name: str) -> int:
    return checkpoint.tokenizer(family.checkpoint).convert_tokens_to_ids(name)


def test_no_image_token_can_be_sampled(family: InternVL35) -> None:
    assert {model_token(family, name) for name in ("<img>", "<IMG_CONTEXT>", "</img>", "<video>")} <= set(family.codec().banned)


def test_a_prefix_holds_the_whole_perception_and_no_more(family: InternVL35) -> None:
    batch = family.collate([family.row(sample(TASKS[0], i)) for i in range(2)])
    cut = batch.until(Span.perception)
    assert (cut.labels == Span.perception).sum() == (batch.labels == Span.perception).sum()
    assert (cut.labels[:, -1] == Span.perception).any()


def test_what_is_saved_loads_with_plain_transformers(family: InternVL35, model: torch.nn.Module, tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    family.save(model, tmp_path)
    again = InternVL35(path=str(tmp_path))
    batch = family.collate([family.row(sample(TASKS[0]))])
    assert again.row(sample(TASKS[0])).ids == family.row(sample(TASKS[0])).ids
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    assert plain.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in plain.state_dict().items())
    with torch.no_grad():
        assert_close(plain(**batch.arguments).logits, model(**batch.arguments).logits, rtol=1e-4, atol=1e-4)


def test_a_head_that_the_file_does_not_call_tied_is_not_tied(tiny_internvl, tmp_path: Path) -> None:
    # The published config.json does not mention the head, and the published weights have an untied one.
    saved = tiny_internvl(tied=False)
    saved.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["tie_word_embeddings"], values["text_config"]["tie_word_embeddings"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    loaded = InternVL35(path=str(tmp_path)).load()
    assert torch.equal(loaded.lm_head.weight, saved.lm_head.weight) and not loaded.config.tie_word_embeddings
    assert loaded.lm_head.weight is not loaded.get_input_embeddings().weight


def test_a_missing_packaged_checkpoint_says_how_to_make_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(locate, "PACKAGED", tmp_path)
    with pytest.raises(CheckpointError, match=r"packaged yet\. Make it with `make base FAMILY=internvl35 SIZE=tiny`, or set model\.path"):
        InternVL35().codec()


def test_a_checkpoint_of_another_family_is_named() -> None:
    with pytest.raises(CheckpointError, match="is of type qwen3_vl, and model=internvl35 reads internvl"):
        InternVL35(path=locate.packaged("qwen3vl")).prompt(sample(TASKS[0]).prompt)


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model.size must be one of tiny, tiny-graphs, 1B, 2B, 4B, 8B, 14B, 38B, got '30B'"):
        InternVL35(size="30B")


# Tiles


@pytest.mark.parametrize("max_tiles", [1, 2, 6, 12])
def test_the_number_of_tiles_is_that_of_the_stock_image_processor(family: InternVL35, max_tiles: int) -> None:
    processor = checkpoint.image_processor(family.checkpoint)
    options = {"crop_to_patches": max_tiles > 1, "min_patches": 1, "max_patches": max_tiles}
    for width in (30, 96, 97, 150, 192, 250, 480, 1000):
        for height in (30, 96, 100, 144, 192, 300, 960):
            expected = processor.get_number_of_image_patches(height, width, options) if max_tiles > 1 else 1
            assert num_tiles(width, height, side=(96, 96), max_tiles=max_tiles) == expected, (width, height)


def test_a_picture_of_several_tiles_has_tokens_for_each_and_trains_like_any_other(family: InternVL35, model: torch.nn.Module) -> None:
    cut = replace(family, max_tiles=4)
    one = sample(TASKS[2])  # 200 x 200 pixels: 2 x 2 tiles of 96 x 96 and a thumbnail.
    row = cut.row(one)
    assert row.inputs["pixel_values"].shape == (5, 3, 96, 96)
    image = checkpoint.tokenizer(cut.checkpoint).convert_tokens_to_ids("<IMG_CONTEXT>")
    assert row.ids.count(image) == 5 * 36 == cut.limits().num_image_tokens(200, 200)
    batch = cut.collate([row, cut.row(sample(TASKS[0]))])  # The second has 64 x 64 pixels, and one tile or more.
    with torch.no_grad():
        assert torch.isfinite(model(**batch.arguments).logits).all()
    assert cut.image_settings()["max_tiles"] == 4
    assert cut.anatomy().image_tokens(200, 200).tokens == 5 * 36


def test_several_tiles_are_refused_where_vllm_would_cut_them(family: InternVL35) -> None:
    with pytest.raises(ValueError, match=r"model.max_tiles=2 needs rollout=native"):
        replace(family, max_tiles=2).vllm_prompt(sample(TASKS[0]).prompt)
    with pytest.raises(ValueError, match=r"model.max_tiles must lie between 1 and 40, got 0"):
        InternVL35(max_tiles=0)
