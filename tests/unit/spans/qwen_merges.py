"""Tokenizers with the published pre-tokenizer of Qwen's checkpoints: one trained here, and Qwen's own merges where they are installed.

`pip install --no-deps dashscope` brings the published merges (resources/qwen.tiktoken, the 151,643 of Qwen 1 to 3); no test needs it.
"""

from __future__ import annotations

import base64
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import regex
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from percasym.models.architecture import QWEN_SPECIAL
from percasym.models.locate import chat_template
from percasym.plan.inputs import QWEN_PIECES
from percasym.spans.codec import byte_alphabet

END = "<|im_end|>"
MARKUP = ["</td>\n<td>\n", "</perception>\n", "</b>\n\nIt is", "<p>So we go.</p>\n", "r1c2: 4.\n", "- - 3\n", "**A**\n", "(1, 2)\n"]
"""Text in which a line break follows a bracket, as in what Qwen's merges were trained on."""


def trained(texts: list[str], family: str = "qwen3vl") -> PreTrainedTokenizerFast:
    """Byte-level BPE with Qwen's normaliser, pre-tokenizer and special tokens, and the released chat template; no tag is a token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN_PIECES), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(QWEN_SPECIAL),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *(MARKUP * 50)], trainer)
    others = [token for token in QWEN_SPECIAL if token not in (END, QWEN_SPECIAL[0])]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=QWEN_SPECIAL[0],
        additional_special_tokens=others,
        chat_template=chat_template(family),
        clean_up_tokenization_spaces=False,
    )


def published() -> PublishedMerges | None:
    """Qwen's own merges; None where no installed package ships them."""
    spec = find_spec("dashscope")
    file = Path(spec.origin).parent / "resources" / "qwen.tiktoken" if spec and spec.origin else None
    return PublishedMerges(file) if file and file.is_file() else None


class PublishedMerges:
    """Byte-pair encoding by the ranks of a tiktoken file, as Qwen published it; for text without special tokens."""

    def __init__(self, file: Path) -> None:
        lines = (line.split() for line in file.read_bytes().splitlines() if line)
        self.ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
        self._tokens = {rank: token for token, rank in self.ranks.items()}
        self._letters = {byte: letter for letter, byte in byte_alphabet().items()}
        self._pieces = regex.compile(QWEN_PIECES)
        self.eos_token_id = len(self.ranks)
        self.all_special_ids = [self.eos_token_id]
        self._of_piece = lru_cache(maxsize=100_000)(self._merge)

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [token for piece in self._pieces.findall(text) for token in self._of_piece(piece)]

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [END if token == self.eos_token_id else "".join(self._letters[byte] for byte in self._tokens[token]) for token in ids]

    def get_added_vocab(self) -> dict[str, int]:
        return {END: self.eos_token_id}

    def _merge(self, piece: str) -> tuple[int, ...]:
        parts = [bytes([byte]) for byte in piece.encode()]
        while len(parts) > 1:
            rank, at = min((self.ranks.get(a + b, len(self.ranks)), i) for i, (a, b) in enumerate(pairwise(parts)))
            if rank == len(self.ranks):
                break
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return tuple(self.ranks[part] for part in parts)
