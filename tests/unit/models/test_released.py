"""Every released size is the one its authors published, and real chat templates give the exact prompt."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoTokenizer

from percasym.models import locate
from percasym.models.base import Family
from percasym.models.checkpoint import config_from_dict
from percasym.models.internvl35 import InternVL35
from percasym.models.locate import CheckpointError, packaged
from percasym.models.qwen3vl import Qwen3VL
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import Prompt, SampleKey

FAMILIES: dict[str, Callable[..., Family]] = {"qwen3vl": Qwen3VL, "internvl35": InternVL35}
EVERY = [(family, size) for family in FAMILIES for size in locate.released_sizes(family)]


def agrees(count: int, published: str) -> bool:
    """Whether a count is the published one, to the digits published."""
    rounded = re.fullmatch(r"\d+\.?(\d*)B", published)
    return published == (f"{count / 1e9:.{len(rounded[1])}f}B" if rounded else str(count))


def test_a_count_agrees_to_the_digits_published_and_no_further() -> None:
    assert agrees(2_348_347_392, "2.3B") and agrees(2_348_347_392, "2B") and agrees(2_348_347_392, "2348347392")
    assert not agrees(2_348_347_392, "2.4B") and not agrees(2_348_347_392, "2348347393")


@pytest.mark.parametrize(("family", "size"), EVERY)
def test_a_released_size_has_the_published_number_of_parameters(family: str, size: str) -> None:
    published = locate.released(family, size)
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config_from_dict(published.config))
    assert [type(model).__name__] == published.config["architectures"]
    assert agrees(sum(parameter.numel() for parameter in model.parameters()), published.parameters)


def test_the_sizes_are_those_that_were_released() -> None:
    assert locate.released_sizes("qwen3vl") == ("2B", "4B", "8B", "30B-A3B", "32B")
    assert locate.released_sizes("internvl35") == ("1B", "2B", "4B", "8B", "14B", "38B")


@pytest.mark.parametrize(("family", "size"), EVERY)
def test_a_size_is_loaded_from_its_hub_id(family: str, size: str) -> None:
    hub = {"qwen3vl": f"Qwen/Qwen3-VL-{size}-Instruct", "internvl35": f"OpenGVLab/InternVL3_5-{size}-HF"}
    assert FAMILIES[family](size=size).checkpoint == hub[family]


PREPROCESSORS = {
    "qwen3vl": {
        "image_processor_type": "Qwen2VLImageProcessorFast", "size": {"shortest_edge": 65_536, "longest_edge": 16_777_216},
        "patch_size": 16, "temporal_patch_size": 2, "merge_size": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    },
    "internvl35": {"image_processor_type": "GotOcr2ImageProcessorFast", "crop_to_patches": True, "size": {"height": 448, "width": 448}},
}  # fmt: skip


PLACEHOLDERS = {
    "qwen3vl": {"image": "<|image_pad|>", "video": "<|video_pad|>"} | {f"vision_{end}": f"<|vision_{end}|>" for end in ("start", "end")},
    "internvl35": {"image": "<IMG_CONTEXT>"},
}


@pytest.fixture
def real(tmp_path: Path, blank_internvl35: Path) -> Callable[..., Family]:
    """`real("qwen3vl", "8B")`: the released size without its weights, and with the tiny family's vocabulary and placeholders."""

    def make(family: str, size: str, template: str | None = None) -> Family:
        tokenizer = AutoTokenizer.from_pretrained({"qwen3vl": packaged("qwen3vl"), "internvl35": blank_internvl35}[family])
        tokenizer.chat_template = template or locate.chat_template(family)
        tokenizer.save_pretrained(tmp_path)
        names = PLACEHOLDERS[family]
        ids = {f"{name}_token_id": tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}
        (tmp_path / "config.json").write_text(json.dumps({**locate.released(family, size).config, **ids}))
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(PREPROCESSORS[family]))
        return FAMILIES[family](path=str(tmp_path))

    return make


def question(image: tuple[int, int] | None = (256, 256)) -> Prompt:
    drawn = io.BytesIO()
    if image:
        Image.new("RGB", image, "white").save(drawn, "PNG")
    key = SampleKey(task=Sudoku().name, split="test", seed=0, index=0)
    return Prompt(key=key, question="Solve the Sudoku.", image=drawn.getvalue() if image else None)


def text(family: Family, prompt: Prompt) -> str:
    return b"".join(family.codec().pieces(family.prompt(prompt).ids)).decode()


def test_the_real_template_of_qwen3vl_gives_the_exact_prompt(real: Callable[..., Family]) -> None:
    family = real("qwen3vl", "8B")
    # 256 x 256 pixels in patches of 16, merged 2 x 2: 8 x 8 tokens.
    placeholders = f"<|vision_start|>{'<|image_pad|>' * 64}<|vision_end|>"
    assert text(family, question()) == f"<|im_start|>user\n{placeholders}Solve the Sudoku.<|im_end|>\n<|im_start|>assistant\n"
    assert text(family, question(None)) == "<|im_start|>user\nSolve the Sudoku.<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(("size", "image"), [("8B", (256, 256)), ("38B", (1344, 448))])
def test_the_real_template_of_internvl35_gives_the_exact_prompt(real: Callable[..., Family], size: str, image: tuple[int, int]) -> None:
    family = real("internvl35", size)
    # One tile of 448 x 448 pixels in patches of 14, shuffled 2 x 2: 16 x 16 tokens, whatever the picture's own size.
    placeholders = f"<img>{'<IMG_CONTEXT>' * 256}</img>\n"
    assert text(family, question(image)) == f"<|im_start|>user\n{placeholders}Solve the Sudoku.<|im_end|>\n<|im_start|>assistant\n"
    assert family.prompt(question(image)).inputs["pixel_values"].shape == (1, 3, 448, 448)
    family.collate([family.prompt(question(image)), family.prompt(question(None))])


def test_a_template_that_can_think_is_told_not_to(real: Callable[..., Family]) -> None:
    # How Qwen3's templates close the thinking block before it begins.
    switch = "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    family = real("qwen3vl", "2B", template=locate.chat_template("qwen3vl") + switch)
    assert text(family, question(None)).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_a_template_that_leaves_a_thought_open_is_refused(real: Callable[..., Family]) -> None:
    """As those of the Thinking checkpoints, which have no switch: a perception would be stated inside the thought."""
    family = real("qwen3vl", "2B", template=locate.chat_template("qwen3vl") + "{% if add_generation_prompt %}<think>\n{% endif %}")
    with pytest.raises(CheckpointError, match=r"ends every prompt inside <think>.*Use the Instruct checkpoint"):
        family.prompt(question(None))


def test_the_mixture_of_experts_takes_the_same_arguments(real: Callable[..., Family]) -> None:
    family = real("qwen3vl", "30B-A3B")
    values = json.loads(json.dumps(dict(locate.released("qwen3vl", "30B-A3B").config)))
    vocabulary = AutoTokenizer.from_pretrained(packaged("qwen3vl")).get_vocab()
    values |= {name: vocabulary[f"<|{token}|>"] for name, token in (("image_token_id", "image_pad"), ("video_token_id", "video_pad"))}
    values |= {f"vision_{end}_token_id": vocabulary[f"<|vision_{end}|>"] for end in ("start", "end")}
    small = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    values["text_config"] |= {
        **small,
        "moe_intermediate_size": 32,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "vocab_size": len(vocabulary),
    }
    values["vision_config"] |= {"hidden_size": 32, "intermediate_size": 64, "depth": 2, "num_heads": 2, "out_hidden_size": 64}
    values["vision_config"] |= {"deepstack_visual_indexes": [0]}
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config_from_dict(values)).eval()
    batch = family.collate([family.prompt(question()), family.prompt(question(None)), family.prompt(question((512, 256)))])
    is_image = (batch.ids == model.config.image_token_id).int()
    with torch.no_grad():
        ours = model(**batch.arguments).logits
        stock = model(input_ids=batch.ids, attention_mask=batch.mask, mm_token_type_ids=is_image, **batch.inputs).logits
    real_tokens = batch.mask.bool()
    torch.testing.assert_close(ours[real_tokens], stock[real_tokens], rtol=1e-4, atol=1e-4)
