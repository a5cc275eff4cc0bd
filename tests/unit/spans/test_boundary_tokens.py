"""Where the two spans meet, their tokens are those of the whole text, under the merges of released checkpoints."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from percasym.models.internvl35 import InternVL35
from percasym.models.qwen3vl import Qwen3VL
from percasym.spans.codec import Codec
from percasym.spans.grammar import Grammar
from percasym.tasks.canvas import Look
from percasym.tasks.graph_coloring.task import GraphColoring
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import Demonstration, SampleKey, Span

_spec = importlib.util.spec_from_file_location("qwen_merges", Path(__file__).with_name("qwen_merges.py"))
assert _spec and _spec.loader
qwen_merges = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(qwen_merges)

TASKS = (
    Sudoku(verbosity=1, variety_frac=1.0),
    Sudoku(size=9, givens=(30, 34), verbosity=0, techniques="hidden", look=Look(image_px=96)),
    GraphColoring(verbosity=4, variety_frac=1.0),
)


def demonstration(task: Sudoku | GraphColoring, index: int) -> Demonstration:
    return task.sample(SampleKey(task=task.name, split="train_sft", seed=0, index=index)).demonstration


def codecs() -> dict[str, Any]:
    texts = [demonstration(task, index) for task in TASKS for index in range(8)]
    return {"trained": qwen_merges.trained([text.perception + text.reasoning for text in texts]), "published": qwen_merges.published()}


@pytest.fixture(scope="module", params=["trained", "published"])
def codec(request: pytest.FixtureRequest) -> Codec:
    tokenizer = codecs()[request.param]
    if tokenizer is None:
        pytest.skip("no installed package ships Qwen's published merges (pip install --no-deps dashscope)")
    return Codec(tokenizer=tokenizer)


def test_these_merges_join_the_closing_tag_and_a_line_break(codec: Codec) -> None:
    """The case that the laws below are about exists; tokenised apart, the spans would differ from the text."""
    own = demonstration(TASKS[0], 0)
    assert own.reasoning.startswith("\n")
    assert codec.encode(own.perception) + codec.encode(own.reasoning) != codec.encode(own.perception + own.reasoning)
    assert b">\n" in codec.pieces(codec.perception_ids(own))


@pytest.mark.parametrize("task", TASKS, ids=["sudoku4", "sudoku9", "graph_coloring"])
def test_tokens_of_a_demonstration_are_those_of_its_text(codec: Codec, task: Sudoku | GraphColoring) -> None:
    for index in range(10):
        own = demonstration(task, index)
        ids, labels = codec.encode_demonstration(own)
        assert ids == [*codec.encode(own.perception + own.reasoning), codec.end]
        assert list(codec.read(ids, finished=True)[1]) == labels, "a completion of the same tokens has the same labels"
        prefix = codec.perception_ids(own)
        assert ids[: len(prefix)] == prefix, "the forced perception continues as in training"
        assert set(labels[: len(prefix)]) == {Span.perception} and set(labels[len(prefix) :]) == {Span.reasoning}


@settings(max_examples=200)
@given(between=st.text("\n\r \tI(*1é>-", max_size=4), percept=st.text("AB1é\n ", max_size=6))
def test_any_beginning_of_the_reasoning_keeps_the_law(between: str, percept: str) -> None:
    for codec in hypothesis_codecs():
        own = Grammar().demonstrate(percept, between + "So it is.", "1")
        ids, labels = codec.encode_demonstration(own)
        assert ids[:-1] == codec.encode(own.perception + own.reasoning) and len(labels) == len(ids)
        assert list(codec.read(ids, finished=True)[1]) == labels
        forced = b"".join(codec.pieces(codec.perception_ids(own))).decode()
        assert forced.rstrip("\r\n") == own.perception.rstrip("\r\n"), "nothing of the reasoning but line breaks is forced"
        if between[:1].isspace():
            assert ids[: len(codec.perception_ids(own))] == codec.perception_ids(own)


def hypothesis_codecs() -> list[Codec]:
    if not hasattr(hypothesis_codecs, "made"):
        hypothesis_codecs.made = [Codec(tokenizer=tokenizer) for tokenizer in codecs().values() if tokenizer]  # type: ignore[attr-defined]
    return hypothesis_codecs.made  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize("family", ["qwen3vl", "internvl35"])
def test_a_prompt_and_its_response_meet_at_a_token(family: str) -> None:
    own = demonstration(TASKS[0], 0)
    tokenizer = qwen_merges.trained([own.perception + own.reasoning], family)
    messages = [{"role": "user", "content": [{"type": "text", "text": "Solve it."}]}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    ids, _ = Codec(tokenizer=tokenizer).encode_demonstration(own)
    whole = tokenizer.encode(prompt + own.perception + own.reasoning, add_special_tokens=False)
    assert whole == tokenizer.encode(prompt, add_special_tokens=False) + ids[:-1]


@pytest.mark.parametrize("family", [Qwen3VL(), InternVL35()], ids=["qwen3vl", "internvl35"])
def test_the_packaged_tokenizers_give_the_tokens_that_their_models_were_trained_on(family: Qwen3VL | InternVL35) -> None:
    codec = family.codec()
    for task in TASKS:
        own = demonstration(task, 0)
        perception, reasoning = codec.encode(own.perception), codec.encode(own.reasoning)
        ids, labels = codec.encode_demonstration(own)
        assert ids == [*perception, *reasoning, codec.end]
        assert labels == [Span.perception] * len(perception) + [Span.reasoning] * (len(reasoning) + 1)
        assert codec.perception_ids(own) == perception
