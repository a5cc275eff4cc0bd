"""Ids and labels are made together, and a sampled completion is labelled as its demonstration was."""

from __future__ import annotations

import re

import pytest

from percasym.models.qwen3vl import Qwen3VL
from percasym.spans.codec import Codec
from percasym.types import Completion, Demonstration, Prompt, SampleKey, Span

PROMPT = Prompt(key=SampleKey(task="sudoku", split="test", seed=0, index=0), image=None, question="?")
DEMONSTRATION = Demonstration(perception="<perception>1034\n0021</perception>", reasoning=" so r1c2: é.<answer>12</answer>")


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Qwen3VL().codec()


def test_the_two_spans_partition_the_tokens_of_a_demonstration(codec: Codec) -> None:
    ids, labels = codec.encode_demonstration(DEMONSTRATION)
    perception = b"".join(piece for piece, label in zip(codec.pieces(ids), labels, strict=True) if label == Span.perception)
    reasoning = b"".join(piece for piece, label in zip(codec.pieces(ids), labels, strict=True) if label == Span.reasoning)
    assert perception.decode() == DEMONSTRATION.perception
    assert reasoning.decode() == DEMONSTRATION.reasoning + "<|im_end|>"


def test_reading_the_tokens_of_a_demonstration_gives_back_its_labels(codec: Codec) -> None:
    ids, labels = codec.encode_demonstration(DEMONSTRATION)
    rollout = codec.rollout(PROMPT, Completion(ids=tuple(ids), logprobs=None, finished=True))
    assert list(rollout.labels) == labels
    assert (rollout.response.percept, rollout.response.answer, rollout.response.faults) == ("1034\n0021", "12", ())


def test_a_perception_that_never_closes_is_all_perception(codec: Codec) -> None:
    ids = codec.encode("<perception>1034 so it goes")
    assert set(codec.read(ids, finished=False)[1]) == {Span.perception}


def test_without_a_perception_all_is_reasoning(codec: Codec) -> None:
    assert set(codec.read(codec.encode("so it goes"), finished=False)[1]) == {Span.reasoning}


def test_vision_tokens_are_banned_and_the_end_is_not(codec: Codec) -> None:
    names = codec.tokenizer.convert_ids_to_tokens(codec.banned)
    assert {"<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|im_start|>"} <= set(names) and "<|im_end|>" not in names
    assert not {"<perception>", "</perception>", "<answer>", "</answer>"} & set(names)


def test_a_vocabulary_that_is_not_byte_level_is_refused(codec: Codec) -> None:
    class Pieces:
        eos_token_id, all_special_ids = 0, [0]

        def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
            return [1]

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return ["\u2581word"] * len(ids)

        def get_added_vocab(self) -> dict[str, int]:
            return {}

    with pytest.raises(ValueError, match="not byte-level"):
        Codec(tokenizer=Pieces()).pieces([1])


def test_the_coloured_view_shows_every_token_once(codec: Codec) -> None:
    ids, labels = codec.encode_demonstration(DEMONSTRATION)
    shown = codec.show(ids, labels)
    assert shown.count("\x1b[0m") == len(ids) and shown.count("\x1b[44m") == labels.count(Span.perception)
    plain = codec.show(ids, labels, coloured=False)
    assert "\x1b" not in plain
    assert [line.partition(": ")[0] for line in plain.splitlines()] == ["perception", "reasoning"]
    spans = [line.partition(": ")[2] for line in plain.splitlines()]
    assert "|".join(spans) == re.sub(r"\x1b\[\d+m", "", shown)


def test_the_text_of_a_completion_is_what_was_written(codec: Codec) -> None:
    text = DEMONSTRATION.perception + DEMONSTRATION.reasoning
    ids, _ = codec.encode_demonstration(DEMONSTRATION)
    assert codec.text(ids) == codec.text(ids[:-1]) == text
