"""Convert between responses and token ids with span labels.

A demonstration is tokenised as one text, as a model writes it, and labelled by the bytes of its tokens like a sampled completion: a token
belongs to the span in which it starts. Tokenised apart, the spans would be unnatural where they meet: Qwen's merges join the ">" of the
closing tag and a line break. Unlike character offsets, which shift when image placeholders are expanded, bytes of tokens are exact, and
nothing is decoded and tokenised again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import Protocol

from percasym.spans.grammar import Grammar
from percasym.spans.vocabulary import scheme_of, sentencepiece_bytes
from percasym.types import Completion, Demonstration, Prompt, Response, Rollout, Span


class Tokenizer(Protocol):
    """The subset of a Hugging Face tokenizer that the codec uses; its vocabulary is byte-level, or SentencePiece with a fast backend."""

    eos_token_id: int
    all_special_ids: list[int]

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Ids of a text."""
        ...

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        """Vocabulary entries of ids."""
        ...

    def get_added_vocab(self) -> dict[str, int]:
        """Added tokens, which are literal text and not byte-level."""
        ...


def byte_alphabet() -> dict[str, int]:
    """The printable character of every byte in a byte-level vocabulary (GPT-2's table).

    >>> byte_alphabet()["A"], byte_alphabet()["\u0120"]
    (65, 32)
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def label_tokens(pieces: Sequence[bytes], boundary: int) -> tuple[Span, ...]:
    """Label each token by the span in which it starts; `boundary` is the byte just after the closing tag.

    >>> [str(k) for k in label_tokens([b"<p>3", b"</p>\\n", b"so 4"], boundary=8)]
    ['perception', 'perception', 'reasoning']
    """
    starts = accumulate((len(piece) for piece in pieces), initial=0)
    return tuple(Span.perception if start < boundary else Span.reasoning for start, _ in zip(starts, pieces, strict=False))


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """Text and tokens of one tokenizer under one grammar."""

    tokenizer: Tokenizer
    grammar: Grammar = field(default_factory=Grammar)
    turn_end: int | None = None
    """Id of the token that ends a response; None is the tokenizer's end of sequence."""
    placeholders: frozenset[int] = frozenset()
    """Ids of tokens that stand for pictures and videos, by the model's configuration."""
    _bytes: dict[str, int] = field(default_factory=byte_alphabet, repr=False)
    _added: dict[str, int] = field(init=False, repr=False)
    _sentencepiece: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_added", self.tokenizer.get_added_vocab())
        object.__setattr__(self, "_sentencepiece", scheme_of(self.tokenizer) == "sentencepiece")

    @property
    def end(self) -> int:
        """Id of the end-of-sequence token, which belongs to the reasoning span."""
        return self.tokenizer.eos_token_id if self.turn_end is None else self.turn_end

    @property
    def banned(self) -> list[int]:
        """Special tokens and placeholders other than the end of sequence; a sampled image token would break the next forward."""
        added = getattr(self.tokenizer, "added_tokens_decoder", {})
        special = {token for token, entry in added.items() if entry.special}  # Some tokenizers name only a few of them.
        return sorted((set(self.tokenizer.all_special_ids) | special | self.placeholders) - {self.end})

    def encode(self, text: str) -> list[int]:
        """Ids of one segment, without special tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def encode_demonstration(self, demonstration: Demonstration) -> tuple[list[int], list[Span]]:
        """Ids of perception, reasoning and end of sequence, and one label for each."""
        ids = self.encode(demonstration.perception + demonstration.reasoning)
        boundary = len(b"".join(self.pieces(self.encode(demonstration.perception))))
        labels = label_tokens(self.pieces(ids[:boundary]), boundary)  # A token has at least one byte.
        return [*ids, self.end], [*labels, *[Span.reasoning] * (len(ids) + 1 - len(labels))]

    def perception_ids(self, demonstration: Demonstration) -> list[int]:
        """The tokens with which a demonstration states its percept, for forcing them.

        They include line breaks that the tokenizer joins to the closing tag, so what follows is as in training. Where it joins more of the
        reasoning to the tag (which takes a reasoning without white space before it), the span is tokenised by itself.
        """
        ids, labels = self.encode_demonstration(demonstration)
        own = [token for token, label in zip(ids, labels, strict=True) if label == Span.perception]
        alone = self.encode(demonstration.perception)
        joined = b"".join(self.pieces(own))[len(b"".join(self.pieces(alone))) :]
        return alone if joined.strip(b"\r\n") else own

    def pieces(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes of each token."""
        return [self._piece(token) for token in self.tokenizer.convert_ids_to_tokens(list(ids))]

    def read(self, ids: Sequence[int], *, finished: bool) -> tuple[Response, tuple[Span, ...]]:
        """Parse a completion and label its tokens; the end-of-sequence token is not part of the text."""
        ended = bool(ids) and ids[-1] == self.end
        pieces = self.pieces(ids[:-1] if ended else ids)
        response = self.grammar.read(b"".join(pieces), finished=finished)
        labels = label_tokens(pieces, response.boundary)
        return response, (*labels, Span.reasoning) if ended else labels

    def text(self, ids: Sequence[int]) -> str:
        """The text of a completion without its end-of-sequence token; bytes that are not UTF-8 become U+FFFD."""
        ended = bool(ids) and ids[-1] == self.end
        return b"".join(self.pieces(ids[:-1] if ended else ids)).decode(errors="replace")

    def rollout(self, prompt: Prompt, completion: Completion) -> Rollout:
        """A completion with its parsed response and span labels."""
        response, labels = self.read(completion.ids, finished=completion.finished)
        return Rollout(prompt=prompt, completion=completion, response=response, labels=labels)

    def show(self, ids: Sequence[int], labels: Sequence[int], *, coloured: bool = True) -> str:
        """The tokens, separated by `|`, with ANSI background colours: perception blue, reasoning green, other grey.

        Without colours each span is a line of its own that begins with its name.
        """
        colour: dict[int, str] = {Span.perception: "44", Span.reasoning: "42"}
        shown = [piece.decode(errors="replace").replace("\n", "\\n") for piece in self.pieces(ids)]
        if not coloured:
            names = {int(span): str(span) for span in Span}
            spans = groupby(zip(labels, shown, strict=True), key=lambda pair: names.get(pair[0], "other"))
            return "\n".join(f"{name}: {'|'.join(text for _, text in own)}" for name, own in spans)
        return "|".join(f"\x1b[{colour.get(label, '100')}m{text}\x1b[0m" for text, label in zip(shown, labels, strict=True))

    def _piece(self, token: str) -> bytes:
        if token in self._added:
            return token.encode()
        if self._sentencepiece:
            return sentencepiece_bytes(token)
        try:
            return bytes(self._bytes[character] for character in token)
        except KeyError:
            raise ValueError(
                f"Token {token!r} is not byte-level, so spans cannot be labelled exactly. "
                "Use a model whose tokenizer is byte-level BPE (Qwen3-VL, InternVL3.5) or SentencePiece with a fast backend (Gemma 3)."
            ) from None
