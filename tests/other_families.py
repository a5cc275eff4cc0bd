"""Random tiny checkpoints of families that percasym does not name, in the form of released ones: configuration, weights, tokenizer,
processor and chat template. Each is built from transformers' own configuration class; its tokenizer is trained on the tasks' texts.

    write_family(directory, "gemma3")
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

IMAGE = 32
"""Side of a picture or tile in pixels; patches of 8."""
TEXT = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
    "max_position_embeddings": 2048, "initializer_range": 0.1,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8, "image_size": IMAGE,
    "initializer_range": 0.1,
}  # fmt: skip
GREY: Any = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}

CHATML = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{% for part in message['content'] %}{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
GEMMA = """{{ bos_token }}{% for message in messages %}<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}
{% for part in message['content'] %}{% if part['type'] == 'image' %}<start_of_image>{% else %}{{ part['text'] | trim }}{% endif %}\
{% endfor %}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""
SMOLVLM = """<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}\
{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}\
{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}\
{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>
{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"""


@dataclass(frozen=True, kw_only=True)
class Other:
    """The parts of one family."""

    special: tuple[str, ...]
    """Special tokens; the first is padding, the second the end of sequence."""
    template: str
    config: Callable[[Mapping[str, int]], Any]
    """Token -> id to the configuration."""
    images: Callable[[], Any]
    processor: Mapping[str, Any]
    named: Mapping[str, str]
    """Attributes of the tokenizer that the processor reads."""
    sentencepiece: bool = False


def write_family(directory: Path, name: str, seed: int = 0) -> None:
    """Write a checkpoint with random weights."""
    import torch
    from transformers import AutoModelForImageTextToText

    family = FAMILIES[name]
    tokenizer = _tokenizer(family)
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(family.config(tokenizer.get_vocab()))
    for name, weight in model.named_parameters():  # Gemma's projection starts at zero, which would hide the picture.
        if "projection" in name and not weight.any():
            torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    family.images().save_pretrained(directory)
    (directory / "processor_config.json").write_text(json.dumps(dict(family.processor)))


def _tokenizer(family: Other) -> Any:
    """Byte-level BPE as of Qwen and SmolVLM, or SentencePiece's BPE with a byte fallback as of Gemma."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from percasym.tasks.graph_coloring.task import GraphColoring
    from percasym.tasks.sudoku.task import Sudoku
    from percasym.types import SampleKey

    keys = [SampleKey(task=task.name, split="base", seed=0, index=i) for task in (Sudoku(), GraphColoring()) for i in range(10)]
    samples = [(Sudoku() if key.task == "sudoku" else GraphColoring()).sample(key) for key in keys]
    texts = [text for s in samples for text in (s.prompt.question, s.demonstration.perception, s.demonstration.reasoning)]
    if family.sentencepiece:
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
        special = [*family.special, *(f"<0x{byte:02X}>" for byte in range(256))]
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        special = list(family.special)
    alphabet = [] if family.sentencepiece else sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    if family.sentencepiece:  # The bytes of a real vocabulary are no special tokens.
        values = json.loads(tokenizer.to_str())
        values["added_tokens"] = [token for token in values["added_tokens"] if not token["content"].startswith("<0x")]
        tokenizer = Tokenizer.from_str(json.dumps(values))
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in family.special])
    others = {"bos_token": "<bos>", "unk_token": "<unk>"} if family.sentencepiece else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=family.special[0], eos_token=family.special[1], **others,
        extra_special_tokens=dict(family.named), chat_template=family.template, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def qwen2_5_vl(token: Mapping[str, int]) -> Any:
    from transformers import Qwen2_5_VLConfig

    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 8, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "out_hidden_size": 32, "window_size": 32, "fullatt_block_indexes": [1], "initializer_range": 0.1,
    }  # fmt: skip
    names = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>", "vision_start_token_id": "<|vision_start|>"}
    return Qwen2_5_VLConfig(
        text_config=TEXT | {"vocab_size": len(token), "rope_parameters": rope, "tie_word_embeddings": True},
        vision_config=vision, tie_word_embeddings=True, **{name: token[text] for name, text in names.items()},
    )  # fmt: skip


def gemma3(token: Mapping[str, int]) -> Any:
    from transformers import Gemma3Config

    layers = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 24, "query_pre_attn_scalar": 16}
    return Gemma3Config(
        text_config=TEXT | layers | {"vocab_size": len(token)}, vision_config=VISION, mm_tokens_per_image=4,
        boi_token_index=token["<start_of_image>"], eoi_token_index=token["<end_of_image>"], image_token_index=token["<image_soft_token>"],
    )  # fmt: skip


def idefics3(token: Mapping[str, int]) -> Any:
    from transformers import Idefics3Config

    text = TEXT | {"model_type": "llama", "vocab_size": len(token), "pad_token_id": 0}
    return Idefics3Config(text_config=text, vision_config=VISION, scale_factor=2, image_token_id=token["<image>"], pad_token_id=0)


def smolvlm(token: Mapping[str, int]) -> Any:
    from transformers import SmolVLMConfig

    text = TEXT | {"model_type": "llama", "vocab_size": len(token), "pad_token_id": 0}
    return SmolVLMConfig(text_config=text, vision_config=VISION, scale_factor=2, image_token_id=token["<image>"], pad_token_id=0)


def llava_onevision(token: Mapping[str, int]) -> Any:
    from transformers import LlavaOnevisionConfig

    return LlavaOnevisionConfig(
        text_config=TEXT | {"model_type": "qwen2", "vocab_size": len(token)}, vision_config=VISION | {"model_type": "siglip_vision_model"},
        image_token_index=token["<image>"], video_token_index=token["<video>"], image_grid_pinpoints=PINPOINTS, vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )  # fmt: skip


PINPOINTS = [[IMAGE, IMAGE], [IMAGE, 2 * IMAGE], [2 * IMAGE, IMAGE], [2 * IMAGE, 2 * IMAGE]]


def qwen_images() -> Any:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    size = {"shortest_edge": 32 * 32, "longest_edge": 96 * 96}
    return Qwen2VLImageProcessorPil(patch_size=8, temporal_patch_size=2, merge_size=2, size=size, **GREY)


def gemma_images() -> Any:
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    return Gemma3ImageProcessorPil(size={"height": IMAGE, "width": IMAGE}, **GREY)


def idefics_images() -> Any:
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    return Idefics3ImageProcessorPil(size={"longest_edge": 2 * IMAGE}, max_image_size={"longest_edge": IMAGE}, **GREY)


def smolvlm_images() -> Any:
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    return SmolVLMImageProcessorPil(size={"longest_edge": 2 * IMAGE}, max_image_size={"longest_edge": IMAGE}, **GREY)


def llava_images() -> Any:
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

    return LlavaOnevisionImageProcessorPil(size={"height": IMAGE, "width": IMAGE}, image_grid_pinpoints=PINPOINTS, **GREY)


QWEN = ("<|endoftext|>", "<|im_end|>", "<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
SMOL = (
    "<|im_start|>", "<|endoftext|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)),
)  # fmt: skip
"""Here the end of sequence is not the end of a turn."""
SMOL_NAMED = {"image_token": "<image>", "fake_image_token": "<fake_token_around_image>", "end_of_utterance_token": "<end_of_utterance>"}

FAMILIES = {
    "qwen2_5_vl": Other(
        special=QWEN, template=CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>"), config=qwen2_5_vl,
        images=qwen_images, processor={"processor_class": "Qwen2_5_VLProcessor"}, named={},
    ),
    "gemma3": Other(
        special=("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>",
                 "<image_soft_token>"),
        template=GEMMA, config=gemma3, images=gemma_images, processor={"processor_class": "Gemma3Processor", "image_seq_length": 4},
        named={"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}, sentencepiece=True,
    ),
    "idefics3": Other(
        special=SMOL, template=SMOLVLM, config=idefics3, images=idefics_images,
        processor={"processor_class": "Idefics3Processor", "image_seq_len": 4}, named=SMOL_NAMED,
    ),
    "smolvlm": Other(
        special=SMOL, template=SMOLVLM, config=smolvlm, images=smolvlm_images,
        processor={"processor_class": "SmolVLMProcessor", "image_seq_len": 4}, named=SMOL_NAMED,
    ),
    "llava_onevision": Other(
        special=("<|endoftext|>", "<|im_end|>", "<|im_start|>", "<image>", "<video>"), template=CHATML.replace("IMAGE", "<image>"),
        config=llava_onevision, images=llava_images, named={},
        processor={"processor_class": "LlavaOnevisionProcessor", "num_image_tokens": 16, "vision_feature_select_strategy": "full"},
    ),
}  # fmt: skip
