"""Spans of the tokens of a response: by tags, a regular expression or a function, under both kinds of vocabulary."""

from __future__ import annotations

import re

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from percasym import label_spans
from percasym.integrations.collate import SpanCollator
from percasym.integrations.label import LabelError, perception_ranges, token_bytes
from percasym.models.qwen3vl import Qwen3VL
from percasym.types import Span

TEXT = "<perception>12\n30</perception> Row 1 lacks 3. <answer>1</answer>"


@pytest.fixture(scope="module")
def tokenizer():
    return Qwen3VL().codec().tokenizer


def spelled(decoder: object, *pieces: str) -> PreTrainedTokenizerFast:
    """A tokenizer whose token i is the entry `pieces[i]`, with this decoder; token 0 is unknown."""
    tokenizer = Tokenizer(models.WordLevel({piece: place for place, piece in enumerate(("<unk>", *pieces))}, unk_token="<unk>"))
    tokenizer.decoder = decoder
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


SENTENCEPIECE = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])


def test_tags_label_the_tokens_up_to_the_closing_one(tokenizer) -> None:
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    spans = label_spans(ids, tokenizer)
    seen = b"".join(piece for piece, span in zip(token_bytes(ids, tokenizer), spans, strict=True) if span is Span.perception)
    assert seen == b"<perception>12\n30</perception>"
    assert sorted(set(spans)) == [0, 1] and spans == sorted(spans)


def test_a_token_across_the_boundary_is_perception() -> None:
    # "AB" | "C." with perception "ABC": the second token has one of its bytes.
    tokenizer = spelled(decoders.ByteLevel(), "AB", "C.", "D")
    assert label_spans([1, 2, 3], tokenizer, lambda text: [(0, 3)]) == [0, 0, 1]


def test_a_regular_expression_labels_its_group_wherever_it_matches() -> None:
    tokenizer = spelled(decoders.ByteLevel(), "See:", "A", ";", "B", "So")
    assert label_spans([1, 2, 3, 1, 4, 3, 5], tokenizer, re.compile("See:(.)")) == [1, 0, 1, 1, 0, 1, 1]
    assert label_spans([1, 2, 3, 1, 4, 3, 5], tokenizer, re.compile("See:.")) == [0, 0, 1, 0, 0, 1, 1]


def test_a_character_of_several_tokens_is_labelled_whole() -> None:
    # U+00E9 is the bytes C3 A9, one token each here: "e" with an accent is perception, and so are both.
    tokenizer = spelled(SENTENCEPIECE, "<0xC3>", "<0xA9>", "\u2581so")
    assert token_bytes([1, 2, 3], tokenizer) == [b"\xc3", b"\xa9", b" so"]
    assert label_spans([1, 2, 3], tokenizer, lambda text: [(0, 1)]) == [0, 0, 1]


def test_half_a_character_does_not_shift_what_follows() -> None:
    tokenizer = spelled(SENTENCEPIECE, "<0xC3>", "A", "B")
    assert label_spans([1, 2, 3], tokenizer, lambda text: [(1, 2)]) == [1, 0, 1]


def test_a_response_without_perception_is_an_error_or_reasoning(tokenizer) -> None:
    ids = tokenizer.encode("So 1.", add_special_tokens=False)
    with pytest.raises(LabelError, match=r"No perception was found in a response that begins with 'So 1\.'\. Check the tags <perception>"):
        label_spans(ids, tokenizer)
    assert set(label_spans(ids, tokenizer, missing="reasoning")) == {Span.reasoning}
    assert perception_ranges("So <perception>1</perception>", ("<perception>", "</perception>")) == []


def test_ranges_that_overlap_or_leave_the_text_are_refused(tokenizer) -> None:
    ids = tokenizer.encode(TEXT, add_special_tokens=False)
    for ranges in ([(0, 3), (2, 4)], [(0, 1000)], [(-1, 2)]):
        with pytest.raises(LabelError, match="which overlap or leave the"):
            label_spans(ids, tokenizer, lambda text, found=ranges: found)


def test_other_vocabularies_are_refused() -> None:
    with pytest.raises(ValueError, match="neither byte-level nor SentencePiece"):
        label_spans([1], spelled(decoders.WordPiece(), "a"))
    with pytest.raises(ValueError, match="has no fast backend"):
        label_spans([1], type("Slow", (), {"get_added_vocab": lambda self: {}})())


@pytest.mark.parametrize("rule", ["<perception>", ("<perception>",), ("<perception>", ""), 3, None])
def test_what_is_no_rule_is_refused_at_once(tokenizer, rule) -> None:
    with pytest.raises(ValueError, match=r"perception must be two tags, .* or a function of the text, got"):
        label_spans([1], tokenizer, rule)
    with pytest.raises(ValueError, match="perception must be two tags"):
        SpanCollator(list, tokenizer, rule)


def test_a_misspelled_answer_to_missing_perception_is_refused(tokenizer) -> None:
    with pytest.raises(ValueError, match="missing must be one of raise, reasoning, got 'reasonning'"):
        SpanCollator(list, tokenizer, missing="reasonning")
