"""Label the tokens of a response as perception or reasoning: by tags, a regular expression, or a function.

Unlike labelling by character offsets of a second tokenisation, the rule reads the bytes of the given tokens, so nothing is tokenised again
and image placeholders cannot shift a boundary. No torch.

>>> perception_ranges("<see>AB</see> so 4", ("<see>", "</see>")), perception_ranges("Picture: AB. Hence 4", re.compile("Picture: (.*?)[.]"))
([(0, 13)], [(9, 11)])
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any, Literal, get_args

from percasym.spans.codec import byte_alphabet
from percasym.spans.grammar import Grammar
from percasym.spans.vocabulary import Scheme, scheme_of, sentencepiece_bytes
from percasym.types import Span

Ranges = Sequence[tuple[int, int]]
"""Character ranges [start, stop) of a response."""
Rule = tuple[str, str] | re.Pattern[str] | Callable[[str], Ranges]
"""What is perception in the text of a response: from its start to the closing of two tags; every match of a regular expression (its
group 1, where it has groups); or the ranges that a function returns."""
Missing = Literal["raise", "reasoning"]
"""What a response in which the rule finds no perception is: an error, or reasoning as a whole."""

TAGS = (Grammar().open_perception, Grammar().close_perception)
EXCERPT_CHARACTERS = 80


class LabelError(ValueError):
    """A response that a rule cannot label; the message is one sentence."""


def label_spans(ids: Sequence[int], tokenizer: Any, perception: Rule = TAGS, *, missing: Missing = "raise") -> list[Span]:
    """One span for each token of a response, perception where any of its bytes is.

    - ids: the tokens of one response, without its prompt.
    - tokenizer: a fast Hugging Face tokenizer, or a processor with one. Its vocabulary must be byte-level (GPT-2, Qwen, Llama 3) or
      SentencePiece (Gemma, Llama 2), because the bytes of a single token of others are not defined.

    Raises LabelError where the rule finds no perception and `missing` is "raise"; ValueError for another vocabulary.
    """
    require_rule(perception, missing)
    pieces = token_bytes(ids, tokenizer)
    data = b"".join(pieces)
    text = data.decode(errors="surrogateescape")
    ranges = perception_ranges(text, perception)
    if not any(start < stop for start, stop in ranges):
        if missing == "raise":
            raise LabelError(f"No perception was found in a response that begins with {text[:EXCERPT_CHARACTERS]!r}. {_advice(perception)}")
        return [Span.reasoning] * len(pieces)
    size = [len(character.encode(errors="surrogateescape")) for character in text]
    at = [0, *accumulate(size)]  # Byte at which each character starts.
    marks = sorted((at[start], at[stop]) for start, stop in ranges)
    opened = [start for start, _ in marks]
    ends = list(accumulate((len(piece) for piece in pieces), initial=0))
    spans = []
    for start, end in pairwise(ends):
        last = bisect_left(opened, max(end, start + 1)) - 1  # The last range that begins before this token ends.
        spans.append(Span.perception if last >= 0 and marks[last][1] > start else Span.reasoning)
    return spans


def require_rule(rule: Any, missing: Any) -> None:
    """Raise ValueError for what is no rule, or no answer to where it finds nothing."""
    tags = isinstance(rule, tuple) and len(rule) == 2 and all(isinstance(tag, str) and tag for tag in rule)
    if not (tags or isinstance(rule, re.Pattern) or callable(rule)):
        raise ValueError(
            "perception must be two tags, ('<perception>', '</perception>'), a regular expression, re.compile(...), or a function of the "
            f"text, got {rule!r}."
        )
    if missing not in get_args(Missing):
        raise ValueError(f"missing must be one of {', '.join(get_args(Missing))}, got {missing!r}.")


def perception_ranges(text: str, rule: Rule) -> Ranges:
    """The character ranges of `text` that a rule calls perception; empty where there is none.

    Under tags, perception is the start of the response up to the end of the closing tag, as in `percasym.spans.grammar`; a response that
    does not start with the opening tag (white space aside) has none, and one that never closes it is perception as a whole.
    """
    if isinstance(rule, tuple):
        opening, closing = rule
        if not text.lstrip().startswith(opening):
            return []
        end = text.find(closing)
        return [(0, len(text) if end < 0 else end + len(closing))]
    if isinstance(rule, re.Pattern):
        group = 1 if rule.groups else 0
        return [match.span(group) for match in rule.finditer(text) if match.group(group)]
    ranges = sorted((int(start), int(stop)) for start, stop in rule(text))
    for (start, stop), after in zip(ranges, [*(first for first, _ in ranges[1:]), len(text)], strict=True):
        if not 0 <= start <= stop <= after:
            raise LabelError(f"The function that labels spans returned {ranges}, which overlap or leave the {len(text)} characters.")
    return ranges


def token_bytes(ids: Sequence[int], tokenizer: Any) -> list[bytes]:
    """The bytes of each token. Raises ValueError where the vocabulary is neither byte-level nor SentencePiece."""
    tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # Of a processor.
    added, scheme, alphabet = tokenizer.get_added_vocab(), _scheme(tokenizer), byte_alphabet()

    def of(token: str) -> bytes:
        if token in added:
            return token.encode()
        if scheme == "byte-level":
            return bytes(alphabet[character] for character in token)
        return sentencepiece_bytes(token)

    return [of(token) for token in tokenizer.convert_ids_to_tokens(list(ids))]


def _scheme(tokenizer: Any) -> Scheme:
    """How the vocabulary spells bytes. Raises ValueError where that is not known."""
    found = scheme_of(tokenizer)
    if found is None and getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ValueError(f"{type(tokenizer).__name__} has no fast backend, so the bytes of its tokens are unknown. Load a fast one.")
    if found is None:
        raise ValueError(
            f"The vocabulary of {type(tokenizer).__name__} is neither byte-level nor SentencePiece, so its tokens cannot be labelled. "
            "Give the column `spans` yourself."
        )
    return found


def _advice(rule: Rule) -> str:
    kind = f"the tags {rule[0]} and {rule[1]}" if isinstance(rule, tuple) else "the rule"
    return f"Check {kind}, or pass missing='reasoning' to train such rows as reasoning."
