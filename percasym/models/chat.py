"""Tokenise prompts and demonstrations and pad rows into a batch: the steps that all families share.

Unlike a stock processor, image placeholders are expanded on token ids, so no text is tokenised twice and torchvision is not needed.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from percasym.config.escaping import shortened
from percasym.models import checkpoint
from percasym.models.base import Batch, Row
from percasym.models.locate import CheckpointError
from percasym.models.template import render
from percasym.spans.codec import Codec
from percasym.types import UNSUPERVISED, Prompt, Sample

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


OPEN_THOUGHT = "<think>"
"""How templates of thinking models begin a response, unless `enable_thinking=False` closes the thought at once."""


@lru_cache(maxsize=4)
def codec(path: str) -> Codec:
    """The codec (grammar and tokenizer) of a checkpoint. Raises CheckpointError for a tokenizer without an end of sequence."""
    check_vocabulary(path)
    tokenizer = checkpoint.tokenizer(path)
    if tokenizer.eos_token_id is None:
        raise CheckpointError(f"The tokenizer of {path} has no end of sequence (eos_token). Check model.path.")
    return Codec(tokenizer=tokenizer, placeholders=placeholders(path))


def check_vocabulary(path: str) -> None:
    """Raise CheckpointError for a tokenizer with tokens that its model has no embedding for."""
    last = max(checkpoint.tokenizer(path).get_vocab().values(), default=0)
    if last >= (embedded := int(checkpoint.config(path).get_text_config().vocab_size)):
        raise CheckpointError(f"The tokenizer of {path} has a token {last:,}, and its model {embedded:,} embeddings.")


TOKENIZER_PLACEHOLDERS = ("image_token_id", "video_token_id", "context_image_token_id", "start_image_token_id", "end_image_token_id")
PLACEHOLDERS = re.compile(r"(image|video|vision|context_image|start_image|end_image)\w*_token_id")
"""Names of ids in a configuration, and of attributes of a tokenizer, that processors put in place of pictures and videos."""


def placeholders(path: str) -> frozenset[int]:
    """Ids that stand for pictures and videos, whether or not the tokenizer calls them special."""
    tokenizer = checkpoint.tokenizer(path)
    configured = [value for name, value in vars(checkpoint.config(path)).items() if PLACEHOLDERS.fullmatch(name)]
    own = [getattr(tokenizer, name, None) for name in TOKENIZER_PLACEHOLDERS]
    return frozenset(token for token in (*configured, *own) if isinstance(token, int) and token < len(tokenizer))


@lru_cache(maxsize=16)
def token(path: str, name: str) -> int:
    """The id of a special token.

    Raises CheckpointError when the tokenizer of the checkpoint has no such token.
    """
    tokenizer = checkpoint.tokenizer(path)
    if name not in tokenizer.get_vocab():
        raise CheckpointError(f"The tokenizer of {path} has no token {name}, so it is not of this family. Check model.path.")
    return tokenizer.convert_tokens_to_ids(name)


@lru_cache(maxsize=16)
def image_token(path: str, name: str) -> int:
    """The id of the image token of a checkpoint. Raises CheckpointError where tokenizer and configuration disagree about it."""
    found = token(path, name)
    if (configured := getattr(checkpoint.config(path), "image_token_id", found)) != found:
        mismatch = f"The configuration of {path} has the image token {configured}, and its tokenizer has {found} ({name})"
        raise CheckpointError(f"{mismatch}. Check model.path.")
    return found


def pixels(path: str, image: bytes, **options: Any) -> Mapping[str, Tensor]:
    """Image inputs of an encoded picture from the checkpoint's image processor; `options` override the processor's own.

    Raises CheckpointError for an image processor that cannot process it: its settings come from a file.
    """
    processor, picture = checkpoint.image_processor(path), decoded(image)
    try:
        return dict(processor(images=[picture], return_tensors="pt", **options))
    except Exception as error:  # numpy's, PIL's and transformers' own types.
        reason = shortened(error)
        raise CheckpointError(f"The image processor of {path} cannot process a picture ({reason}). Check model.path.") from error


def decoded(image: bytes) -> Image.Image:
    """An encoded picture as an RGB image."""
    from PIL import Image

    return Image.open(io.BytesIO(image)).convert("RGB")


def prompt_row(
    path: str, prompt: Prompt, *, placeholder: str, image: Sequence[int] = (), inputs: Mapping[str, Tensor] | None = None
) -> Row:
    """The chat prompt up to the start of the response, with the tokens `image` in place of the template's placeholder."""
    ids = _chat_ids(path, prompt.question, prompt.image is not None)
    if prompt.image is not None:
        if (shown := image_token(path, placeholder)) not in ids:
            raise CheckpointError(f"The chat template of {path} leaves out pictures: it writes no {placeholder}. Check model.path.")
        at = ids.index(shown)
        ids = (*ids[:at], *image, *ids[at + 1 :])
    return Row(ids=ids, labels=(UNSUPERVISED,) * len(ids), inputs=inputs or {})


def supervised_row(path: str, prompt: Row, sample: Sample) -> Row:
    """A prompt followed by its demonstration, with span labels."""
    return prompt.followed_by(*codec(path).encode_demonstration(sample.demonstration))


def pad_rows(path: str, rows: Sequence[Row], aligned: Mapping[str, Tensor] | None = None) -> Batch:
    """Rows padded on the right to one length; their image inputs are concatenated."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    ids = [torch.tensor(row.ids) for row in rows]
    image_inputs = [row.inputs for row in rows if row.inputs]
    return Batch(
        ids=pad_sequence(ids, batch_first=True, padding_value=codec(path).end),
        mask=pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        labels=pad_sequence([torch.tensor(row.labels) for row in rows], batch_first=True, padding_value=UNSUPERVISED),
        inputs={name: torch.cat([inputs[name] for inputs in image_inputs]) for name in image_inputs[0]} if image_inputs else {},
        aligned=aligned or {},
    )


def check_image_tokens(num_tokens: int, num_features: int) -> None:
    """Raise ValueError unless a row has one image token for each image feature."""
    if num_tokens != num_features:
        raise ValueError(f"A row has {num_tokens} image tokens but {num_features} image features.")


@lru_cache(maxsize=1024)
def _chat_ids(path: str, question: str, has_image: bool) -> tuple[int, ...]:
    """Ids of the chat prompt with one image placeholder; thinking mode is off in templates that have one."""
    content = [{"type": "image"}] * has_image + [{"type": "text", "text": question}]
    tokenizer = checkpoint.tokenizer(path)
    messages = [{"role": "user", "content": content}]
    options = {**tokenizer.special_tokens_map, "add_generation_prompt": True, "enable_thinking": False}
    try:
        text = render(tokenizer.get_chat_template(), messages, **options)
        ids = tuple(tokenizer.encode(text, add_special_tokens=False))
    except Exception as error:  # jinja's own types, of a template of this package; TemplateError, of any other.
        raise CheckpointError(f"{path}: {' '.join(str(error).split())}") from error
    if text.rstrip().endswith(OPEN_THOUGHT):
        raise CheckpointError(
            f"The chat template of {path} ends every prompt inside {OPEN_THOUGHT}, so a response would be part of a thought. "
            "Use the Instruct checkpoint, or close the thought in its chat_template.jinja."
        )
    return ids
