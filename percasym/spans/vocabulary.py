"""How a tokenizer's vocabulary spells bytes: byte-level (GPT-2, Qwen, Llama 3) or SentencePiece (Gemma, Llama 2, Mistral).

Read from the decoder of a fast tokenizer, because the two kinds cannot be distinguished by a single entry.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal

Scheme = Literal["byte-level", "sentencepiece"]

SPACE = "\u2581"
"""The mark of a space in the vocabulary of SentencePiece."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


def scheme_of(tokenizer: Any) -> Scheme | None:
    """The kind of a tokenizer's vocabulary; None where it has no fast backend, or is of neither kind."""
    decoder = getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None)
    if decoder is None:
        return None
    parts = json.dumps(json.loads(decoder.__getstate__()), ensure_ascii=False)
    if '"ByteLevel"' in parts:
        return "byte-level"
    return "sentencepiece" if SPACE in parts or '"Metaspace"' in parts else None


def sentencepiece_bytes(entry: str) -> bytes:
    """The bytes of an entry of a SentencePiece vocabulary.

    >>> sentencepiece_bytes("\u2581red"), sentencepiece_bytes("<0x0A>")
    (b' red', b'\\n')
    """
    byte = _BYTE.fullmatch(entry)
    return bytes([int(byte[1], 16)]) if byte else entry.replace(SPACE, " ").encode()
