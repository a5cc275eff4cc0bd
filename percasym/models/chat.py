"""Prompts as tokens and pictures as tensors: what every family does alike.

Placeholders are expanded on token ids, so no text is tokenised twice and no torchvision is needed.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from percasym.models import checkpoint
from percasym.models.base import Batch, Row
from percasym.spans.codec import Codec
from percasym.types import UNSUPERVISED, Prompt, Sample

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


@lru_cache(maxsize=4)
def codec(path: str) -> Codec:
    """The tokenizer of a checkpoint under the grammar."""
    return Codec(tokenizer=checkpoint.tokenizer(path))


@lru_cache(maxsize=16)
def token(path: str, name: str) -> int:
    """The id of a special token.

    Raises CheckpointError when the tokenizer of the checkpoint has no such token.
    """
    tokenizer = checkpoint.tokenizer(path)
    if name not in tokenizer.get_vocab():
        raise checkpoint.CheckpointError(f"The tokenizer of {path} has no token {name}, so it is not of this family. Check model.path.")
    return tokenizer.convert_tokens_to_ids(name)


def pixels(path: str, image: bytes, **options: Any) -> Mapping[str, Tensor]:
    """What the image processor of a checkpoint makes of an encoded picture; `options` override its own."""
    return dict(checkpoint.image_processor(path)(images=[picture(image)], return_tensors="pt", **options))


def picture(image: bytes) -> Image.Image:
    """A decoded picture."""
    from PIL import Image

    return Image.open(io.BytesIO(image)).convert("RGB")


def asked(path: str, prompt: Prompt, *, placeholder: str, image: Sequence[int] = (), inputs: Mapping[str, Tensor] | None = None) -> Row:
    """The chat prompt up to where the response starts, with the tokens `image` in place of the template's placeholder."""
    ids = _chat(path, prompt.question, prompt.image is not None)
    if prompt.image is not None:
        at = ids.index(token(path, placeholder))
        ids = (*ids[:at], *image, *ids[at + 1 :])
    return Row(ids=ids, labels=(UNSUPERVISED,) * len(ids), inputs=inputs or {})


def answered(path: str, asked: Row, sample: Sample) -> Row:
    """A prompt followed by its demonstration, labelled for supervision."""
    ids, labels = codec(path).encode_demonstration(sample.demonstration)
    return replace(asked, ids=(*asked.ids, *ids), labels=(*asked.labels, *labels))


def padded(path: str, rows: Sequence[Row], aligned: Mapping[str, Tensor] | None = None) -> Batch:
    """Rows padded on the right to one length, their image inputs one after another."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ids = [torch.tensor(row.ids) for row in rows]
    seen = [row.inputs for row in rows if row.inputs]
    return Batch(
        ids=pad_sequence(ids, batch_first=True, padding_value=codec(path).end),
        mask=pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        labels=pad_sequence([torch.tensor(row.labels) for row in rows], batch_first=True, padding_value=UNSUPERVISED),
        inputs={name: torch.cat([inputs[name] for inputs in seen]) for name in seen[0]} if seen else {},
        aligned=aligned or {},
    )


def matched(num_tokens: int, num_features: int) -> None:
    """Raise ValueError unless a row has one image token for each image feature."""
    if num_tokens != num_features:
        raise ValueError(f"A row has {num_tokens} image tokens but {num_features} image features.")


@lru_cache(maxsize=1024)
def _chat(path: str, question: str, has_image: bool) -> tuple[int, ...]:
    """Ids of the chat prompt with one image placeholder; a template that can think is told not to."""
    content = [{"type": "image"}] * has_image + [{"type": "text", "text": question}]
    tokenizer = checkpoint.tokenizer(path)
    messages = [{"role": "user", "content": content}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    return tuple(tokenizer.encode(text, add_special_tokens=False))
