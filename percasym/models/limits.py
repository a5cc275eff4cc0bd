"""Check a row of collected data against a model, before training and without its pixels.

A row that passes gives tokens that the model takes: no control token of its tokenizer in a text, a picture that its image processor does
not refuse, and no more tokens than it has positions. Only rows near that limit are tokenised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from percasym.models import chat, checkpoint, locate
from percasym.types import Prompt, SampleKey

BYTES_A_CHARACTER = 3
"""Most bytes into which normalisation (NFC) turns one byte of text; a byte-level token holds at least one byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputLimits:
    """What a checkpoint takes; call it as a `percasym.tasks.base.RowCheck`."""

    path: str
    """The checkpoint."""
    placeholder: str
    """The image token of its chat template."""
    positions: int
    """Tokens of a prompt with its response."""
    max_ratio: float | None
    """Longer side of a picture over its shorter side; None if any is taken."""
    num_image_tokens: Callable[[int, int], int]
    """Tokens of a picture of (width, height) pixels."""
    control: re.Pattern[str]
    """Matches each control token."""

    def __call__(self, texts: Mapping[str, str], size: tuple[int, int]) -> None:
        """Raise ValueError with the reason when the model cannot take the row: its texts by name, and (width, height) of its picture."""
        for name, text in texts.items():
            if found := self.control.search(text):
                raise ValueError(f"its {name} holds {found[0]}, a control token of the model {self.path}. Remove or rewrite it.")
        width, height = size
        if self.max_ratio is not None and max(size) > self.max_ratio * min(size):
            raise ValueError(f"its image has {width} x {height} pixels, and the model takes sides of at most {self.max_ratio:g} to 1.")
        num_image = self.num_image_tokens(width, height)
        num_bytes = sum(len(text.encode()) for text in texts.values())
        if num_image + BYTES_A_CHARACTER * num_bytes + self._overhead > self.positions:
            self._count(texts, num_image)

    @property
    def _overhead(self) -> int:
        """Tokens of the chat template, the tags and the end of sequence; generous."""
        return 256

    def _count(self, texts: Mapping[str, str], num_image: int) -> None:
        """Raise ValueError when the row, tokenised as for training, has more tokens than the model has positions."""
        codec, token = chat.codec(self.path), chat.token(self.path, self.placeholder)
        prompt = Prompt(key=SampleKey(task="", split="", seed=0, index=0), image=b"", question=texts["query"])
        ids = chat.prompt_row(self.path, prompt, placeholder=self.placeholder, image=[token] * num_image).ids
        response, _ = codec.encode_demonstration(codec.grammar.demonstrate(texts["perception"], texts["reasoning"], texts["answer"]))
        if (num_tokens := len(ids) + len(response)) > self.positions:
            raise ValueError(
                f"it has {num_tokens:,} tokens ({num_image:,} of them its image), and the model has {self.positions:,} positions."
            )


def control_tokens(path: str) -> re.Pattern[str]:
    """A pattern of the special tokens of a checkpoint's tokenizer: in a text they would be encoded as themselves."""
    tokenizer = checkpoint.tokenizer(path)
    added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
    tokens = sorted({*added, *map(str, tokenizer.all_special_tokens)} - {""}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, tokens)) or r"(?!)")


def num_positions(path: str, family: str) -> int:
    """Positions of a checkpoint's language model. Raises CheckpointError for a checkpoint of another family."""
    config = checkpoint.config(path)
    locate.require_type(path, config.model_type, family)
    return int(config.get_text_config().max_position_embeddings)
