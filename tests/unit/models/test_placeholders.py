"""Tokens that stand for pictures and videos are never sampled, whatever a tokenizer calls them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from percasym.models import chat
from percasym.models.locate import packaged

PLACEHOLDERS = {
    "qwen3vl": ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"),
    "internvl35": ("<IMG_CONTEXT>",),
}


@pytest.mark.parametrize("family", PLACEHOLDERS)
def test_placeholders_are_banned_by_the_ids_of_the_model_and_its_processor(family: str, tmp_path: Path) -> None:
    names, folder = PLACEHOLDERS[family], tmp_path / family
    shutil.copytree(packaged(family), folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):  # A tokenizer that calls none of them special.
        (folder / file).write_text(json.dumps(ordinary(json.loads((folder / file).read_text()), names)))
    codec = chat.codec(str(folder))
    ids = {codec.tokenizer.convert_tokens_to_ids(name) for name in names}
    marked = {token for token, entry in codec.tokenizer.added_tokens_decoder.items() if entry.special}
    assert not ids & (marked | set(codec.tokenizer.all_special_ids)), "otherwise this proves nothing"
    assert ids <= set(codec.banned)
    assert codec.end not in codec.banned


def ordinary(value, names):
    """The same JSON with these tokens as ordinary added tokens."""
    if isinstance(value, list):
        return [ordinary(each, names) for each in value if not (isinstance(each, str) and each in names)]
    if not isinstance(value, dict):
        return value
    changed = {key: ordinary(each, names) for key, each in value.items() if key != "model_specific_special_tokens"}
    return changed | {"special": False} if changed.get("content") in names else changed
