"""Blank tiny checkpoints: a tokenizer learned from the tasks' own texts and a small model of the real class.

    python -m percasym.pretrain --help     (pretrains what this module makes)

The directories are ordinary Hugging Face checkpoints: config, safetensors, tokenizer, image processor
and chat template, so that tiny and 8B take the same code path.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from percasym.spans.grammar import Grammar

VOCABULARY = 896
"""Enough for every word of the demonstrations and every pair of digits to be one token."""

# Words and digits keep the white space before them; digits come in pairs, so that a 4x4 grid is 8 tokens.
PIECES = r"\s?\p{L}+|\s?\p{N}{1,2}|\s?[^\s\p{L}\p{N}]+|\s+"

QWEN_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
    "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
    "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip

CHAT_TEMPLATE = """{%- for message in messages -%}
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


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of `texts` with Qwen's special tokens and the grammar's tags."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PIECES), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(QWEN_SPECIAL),
        show_progress=False,
    )
    pairs = [f"{space}{a}{b}" for space in ("", "\n") for a, b in product("0123456789", repeat=2)]
    tokenizer.train_from_iterator([*texts, *(pairs * 1000)], trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in Grammar().tags])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[token for token in QWEN_SPECIAL if token not in ("<|im_end|>", "<|endoftext|>")],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def qwen3vl_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLConfig:
    """About 1.5 M parameters; one image token for each 16 x 16 pixels, that is for each cell of a 4x4 Sudoku."""
    token = tokenizer.get_vocab().__getitem__
    ends: dict[str, Any] = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 4096,
            "initializer_range": 0.06,  # 0.02 is too small at this width: perception does not start to learn.
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [6, 5, 5], "mrope_interleaved": True},
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 96,
            "intermediate_size": 256,
            "num_heads": 4,
            "patch_size": 8,
            "temporal_patch_size": 2,
            "spatial_merge_size": 2,
            "out_hidden_size": 128,
            "num_position_embeddings": 144,  # A 12 x 12 grid of patches: 96 pixels.
            "deepstack_visual_indexes": [0],
            "initializer_range": 0.06,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
        **ends,
    )


def qwen3vl_images() -> Qwen2VLImageProcessorPil:
    """Patches of 8 pixels merged 2 x 2; pictures keep their own size between 64 and 256 pixels a side."""
    return Qwen2VLImageProcessorPil(
        patch_size=8,
        temporal_patch_size=2,
        merge_size=2,
        size={"shortest_edge": 64 * 64, "longest_edge": 256 * 256},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def write_blank(directory: Path, texts: Iterable[str]) -> None:
    """A whole checkpoint directory with random weights (seed the torch generator first)."""
    tokenizer = train_tokenizer(texts)
    tokenizer.save_pretrained(directory)
    qwen3vl_images().save_pretrained(directory)
    Qwen3VLForConditionalGeneration(qwen3vl_config(tokenizer)).save_pretrained(directory)
