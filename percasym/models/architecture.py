"""Create a randomly initialised tiny checkpoint: a tokenizer trained on the tasks' texts and a small model of the real class.

    python -m percasym.app.pretrain --help     (creates and pretrains one)

The result is an ordinary Hugging Face directory (config, safetensors, tokenizer, image processor, chat template), so tiny and 8B take
the same code path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForImageTextToText, InternVLConfig, PreTrainedConfig, PreTrainedTokenizerFast, Qwen3VLConfig
from transformers.image_processing_backends import PilBackend
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from percasym.models.checkpoint import complete_processor
from percasym.models.locate import chat_template
from percasym.spans.grammar import Grammar

VOCABULARY = 896
"""Large enough that every word of the demonstrations and every pair of digits is one token."""

# Words and digits include the white space before them; digits are split in pairs, so a 4x4 grid is 8 tokens.
PIECES = r"\s?\p{L}+|\s?\p{N}{1,2}|\s?[^\s\p{L}\p{N}]+|\s+"

QWEN_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
INTERN_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>",
    "<ref>", "</ref>", "<box>", "</box>", "<video>",
)  # fmt: skip

TEXT = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "initializer_range": 0.06,  # With 0.02 perception does not start to improve at this width.
    "tie_word_embeddings": True,
}
"""The language model of every tiny checkpoint; the whole model has about 1.5 M parameters."""

GREY: Any = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}  # Pixels from -1 to 1.

QWEN_TEMPLATE = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string -%}
{{ message.content }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- else -%}{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}"""
INTERN_TEMPLATE = chat_template("internvl35")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blank:
    """The family-specific parts of a tiny checkpoint."""

    special: tuple[str, ...]
    """Special tokens; the first is padding, `<|im_end|>` is the end of sequence."""
    template: str
    images: Callable[[], PilBackend]
    config: Callable[[PreTrainedTokenizerFast], PreTrainedConfig]


def train_tokenizer(texts: Iterable[str], *, special: tuple[str, ...], template: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on `texts`, with a family's special tokens and the grammar's tags."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PIECES), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(special),
        show_progress=False,
    )
    pairs = [f"{space}{a}{b}" for space in ("", "\n") for a, b in product("0123456789", repeat=2)]
    tokenizer.train_from_iterator([*texts, *(pairs * 1000)], trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in Grammar().tags])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token=special[0],
        additional_special_tokens=[token for token in special if token not in ("<|im_end|>", special[0])],
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )


def qwen3vl_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLConfig:
    """One image token per 16 x 16 pixels, which is one cell of a 4x4 Sudoku."""
    token = tokenizer.get_vocab().__getitem__
    return Qwen3VLConfig(
        text_config={
            **TEXT,
            "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [6, 5, 5], "mrope_interleaved": True},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_heads": 4,
            "patch_size": 8,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "out_hidden_size": TEXT["hidden_size"],
            "num_position_embeddings": 144,  # A 12 x 12 grid of patches: 96 pixels.
            "deepstack_visual_indexes": [0],
            "initializer_range": TEXT["initializer_range"],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
        **_ends(tokenizer),
    )


def qwen3vl_images() -> Qwen2VLImageProcessorPil:
    """Patches of 8 pixels merged 2 x 2; images between 64 and 256 pixels a side are not resized."""
    size = {"shortest_edge": 64 * 64, "longest_edge": 256 * 256}
    return Qwen2VLImageProcessorPil(patch_size=8, temporal_patch_size=2, merge_size=2, size=size, **GREY)


def internvl35_config(tokenizer: PreTrainedTokenizerFast) -> InternVLConfig:
    """One tile of 96 x 96 pixels, the larger of the two tasks' images, with one image token per 16 x 16 pixels."""
    return InternVLConfig(
        text_config={
            **TEXT,
            "model_type": "qwen3",
            "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        },
        vision_config={
            "num_hidden_layers": 2,
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_attention_heads": 4,
            "attention_bias": True,
            "patch_size": 8,
            "image_size": 96,
            "initializer_range": TEXT["initializer_range"],
            "layer_scale_init_value": 1.0,  # The default 0.1 stabilises deep towers; two layers do not need it.
        },
        image_token_id=tokenizer.get_vocab()["<IMG_CONTEXT>"],
        image_seq_length=(96 // 16) ** 2,
        downsample_ratio=0.5,
        tie_word_embeddings=True,
        **_ends(tokenizer),
    )


def internvl35_images() -> GotOcr2ImageProcessorPil:
    """Every image is resized to one tile of 96 x 96 pixels."""
    return GotOcr2ImageProcessorPil(size={"height": 96, "width": 96}, crop_to_patches=False, **GREY)


BLANKS = {
    "qwen3vl": Blank(special=QWEN_SPECIAL, template=QWEN_TEMPLATE, images=qwen3vl_images, config=qwen3vl_config),
    "internvl35": Blank(special=INTERN_SPECIAL, template=INTERN_TEMPLATE, images=internvl35_images, config=internvl35_config),
}
"""Families with a tiny checkpoint."""


def write_blank(directory: Path, texts: Iterable[str], family: str = "qwen3vl") -> None:
    """Write a complete checkpoint directory with random weights (seed the torch generator first)."""
    blank = BLANKS[family]
    tokenizer = train_tokenizer(texts, special=blank.special, template=blank.template)
    tokenizer.save_pretrained(directory)
    blank.images().save_pretrained(directory)
    AutoModelForImageTextToText.from_config(blank.config(tokenizer)).save_pretrained(directory)
    complete_processor(directory)


def _ends(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
