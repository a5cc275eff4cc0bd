"""Prompts, positions and batches of Qwen3-VL beside the stock implementation."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from percasym.models import checkpoint
from percasym.models.checkpoint import CheckpointError
from percasym.models.qwen3vl import Qwen3VL
from percasym.tasks.base import prompt_as_text
from percasym.tasks.canvas import Look
from percasym.tasks.graph_coloring.task import GraphColoring
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import UNSUPERVISED, Sample, SampleKey, Span

FAMILY = Qwen3VL()
TASKS = (Sudoku(), GraphColoring())


def sample(task: Sudoku | GraphColoring, index: int = 0) -> Sample:
    return task.sample(SampleKey(task=task.name, split="test", seed=0, index=index))


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return FAMILY.load().eval()


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_prompt_is_the_chat_template_with_its_placeholder_expanded(task: Sudoku | GraphColoring) -> None:
    one = sample(task)
    text = b"".join(FAMILY.codec().pieces(FAMILY.prompt(one.prompt).ids)).decode()
    num_tokens = (task.look.image_px // 16) ** 2  # Patches of 8 pixels, merged 2 x 2.
    assert text == (
        f"<|im_start|>user\n<|vision_start|>{'<|image_pad|>' * num_tokens}<|vision_end|>{one.prompt.question}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_only_the_response_is_supervised() -> None:
    one = sample(TASKS[0])
    row, prompt = FAMILY.row(one), FAMILY.prompt(one.prompt)
    assert set(row.labels[: len(prompt.ids)]) == {UNSUPERVISED} and set(row.labels[len(prompt.ids) :]) == set(Span)


def test_positions_equal_those_of_the_stock_model_on_mixed_rows(model: torch.nn.Module) -> None:
    with_text = sample(TASKS[0], 1)
    rows = [FAMILY.row(sample(TASKS[0])), FAMILY.row(replace(with_text, prompt=prompt_as_text(with_text))), FAMILY.row(sample(TASKS[1]))]
    batch = FAMILY.collate(rows)
    is_image = (batch.ids == model.config.image_token_id).int()
    expected, _ = model.model.get_rope_index(batch.ids, is_image, batch.inputs["image_grid_thw"], attention_mask=batch.mask)
    real = batch.mask.bool().expand(3, -1, -1)
    assert torch.equal(batch.aligned["position_ids"][real], expected[real])


def test_logits_equal_those_of_the_stock_call_with_its_mask(model: torch.nn.Module) -> None:
    batch = FAMILY.collate([FAMILY.row(sample(TASKS[0], i)) for i in range(3)])
    is_image = (batch.ids == model.config.image_token_id).int()
    with torch.no_grad():
        ours = model(**batch.arguments).logits
        stock = model(input_ids=batch.ids, attention_mask=batch.mask, mm_token_type_ids=is_image, **batch.inputs).logits
    real = batch.mask.bool()
    torch.testing.assert_close(ours[real], stock[real], rtol=1e-4, atol=1e-4)


def test_image_tokens_must_equal_image_features() -> None:
    row = FAMILY.prompt(sample(TASKS[0]).prompt)
    with pytest.raises(ValueError, match="15 image tokens but 16 image features"):
        FAMILY.collate([replace(row, ids=row.ids[:4] + row.ids[5:], labels=row.labels[1:])])


def test_a_prefix_holds_the_whole_perception_and_no_more() -> None:
    batch = FAMILY.collate([FAMILY.row(sample(TASKS[0], i)) for i in range(2)])
    cut = batch.until(Span.perception)
    assert (cut.labels == Span.perception).sum() == (batch.labels == Span.perception).sum()
    assert (cut.labels[:, -1] == Span.perception).any() and cut.aligned["position_ids"].shape[-1] == cut.ids.shape[1]


def test_a_missing_directory_is_named(tmp_path) -> None:
    with pytest.raises(CheckpointError, match="No checkpoint directory at"):
        Qwen3VL(path=str(tmp_path / "nowhere")).load()


def test_damaged_weights_are_one_sentence(tmp_path) -> None:
    FAMILY.load().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(CheckpointError, match=r"could not be loaded|the files beside it cannot hold them"):
        Qwen3VL(path=str(tmp_path)).load()


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"model.size must be one of tiny, tiny-graphs, 2B, 4B, 8B, 30B-A3B, 32B, got '7B'"):
        Qwen3VL(size="7B")


# Resolution


def test_bounds_on_the_area_change_the_tokens_of_a_picture(tmp_path) -> None:
    one = sample(Sudoku(look=Look(image_px=128)))
    tokens, image = {}, checkpoint.tokenizer(FAMILY.checkpoint).convert_tokens_to_ids("<|image_pad|>")
    for name, family in {
        "own": Qwen3VL(),
        "small": Qwen3VL(max_pixels=64**2, min_pixels=32**2),
        "large": Qwen3VL(min_pixels=192**2),
    }.items():
        row = family.row(one)
        tokens[name] = row.ids.count(image)
        assert tokens[name] == family.limits().num_image_tokens(128, 128) == family.anatomy().image_tokens(128, 128).tokens
        assert family.collate([row]).ids.shape[1] == len(row.ids)
    # 16 pixels a token: 8 x 8 tokens as drawn, 4 x 4 when reduced to 64 x 64, 12 x 12 when enlarged to 192 x 192.
    assert tokens == {"own": 64, "small": 16, "large": 144}
    assert Qwen3VL(max_pixels=64**2, min_pixels=32**2).image_settings()["max_pixels"] == 64**2


def test_vllm_gets_a_picture_that_its_image_processor_leaves_as_it_is() -> None:
    family = Qwen3VL(max_pixels=64**2, min_pixels=32**2)
    one = sample(Sudoku(look=Look(image_px=128))).prompt
    image = family.vllm_prompt(one)[1]
    assert image is not None and image.size == (64, 64)
    assert checkpoint.image_processor(family.checkpoint)(images=[image])["image_grid_thw"].tolist() == [[1, 8, 8]]


def test_the_bounds_are_saved_with_the_model(model: torch.nn.Module, tmp_path) -> None:
    family = Qwen3VL(max_pixels=64**2, min_pixels=32**2)
    family.save(model, tmp_path)
    assert Qwen3VL(path=str(tmp_path)).image_settings() == family.image_settings() != Qwen3VL().image_settings()


def test_contradicting_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model.min_pixels=9 is above model.max_pixels=4"):
        Qwen3VL(min_pixels=9, max_pixels=4)
    with pytest.raises(CheckpointError, match=r"model.min_pixels=4096 is above model.max_pixels=100"):
        Qwen3VL(max_pixels=100).image_settings()
