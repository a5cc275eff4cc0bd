"""Strict reading: what is not exactly one perception and one answer has a named fault and scores nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from percasym.spans.grammar import Grammar
from percasym.types import Fault

GRAMMAR = Grammar()
GOOD = "<perception>P</perception> so <answer>A</answer>"

FAULTY = {
    "": {Fault.no_perception, Fault.no_answer},
    "P so A": {Fault.no_perception, Fault.no_answer},
    "x" + GOOD: {Fault.perception_not_first},
    "<perception>P so <answer>A</answer>": {Fault.perception_not_closed},
    "<perception>P so <answer>A</answer><answer>B</answer>": {Fault.perception_not_closed, Fault.many_answers},
    "<perception>P so A": {Fault.perception_not_closed, Fault.no_answer},
    "<perception>P</perception><perception>P</perception><answer>A</answer>": {Fault.many_perceptions},
    "<perception><perception>P</perception><answer>A</answer>": {Fault.many_perceptions},
    "<perception>P</perception><answer>A": {Fault.answer_not_closed},
    "<perception>P</perception>A</answer>": {Fault.no_answer},
    "<perception>P</perception></answer>A<answer>": {Fault.no_answer},
    "<perception>P</perception><answer>A</answer><answer>B</answer>": {Fault.many_answers},
    "<perception>P</perception><answer>A</answer> and more": {Fault.text_after_answer},
    "<answer>A</answer><perception>P</perception>": {Fault.perception_not_first, Fault.text_after_answer},
    "<perception><answer>A</answer></perception>": {Fault.answer_in_perception},
}


def test_a_well_formed_response_has_no_fault() -> None:
    response = GRAMMAR.read(GOOD.encode())
    assert (response.percept, response.reasoning, response.answer, response.faults) == ("P", " so ", "A", ())


@pytest.mark.parametrize("text", FAULTY, ids=range(len(FAULTY)))
def test_each_fault_is_named(text: str) -> None:
    response = GRAMMAR.read(text.encode())
    assert set(response.faults) == FAULTY[text]
    assert response.percept is None or response.answer is None


def test_a_truncated_response_has_no_answer_even_when_one_is_written() -> None:
    response = GRAMMAR.read(GOOD.encode(), finished=False)
    assert response.faults == (Fault.truncated,) and response.answer is None and response.percept == "P"


def test_bytes_that_are_not_text_are_a_fault() -> None:
    assert Fault.not_text in GRAMMAR.read(b"<perception>\xff</perception><answer>A</answer>").faults


def test_a_demonstration_may_not_smuggle_a_tag() -> None:
    with pytest.raises(ValueError, match="contains a tag"):
        GRAMMAR.demonstrate("P", "so <answer>B</answer>", "A")


pieces = st.lists(st.sampled_from([*GRAMMAR.tags, "P", " ", "\n", "é", "</", "perception>"]) | st.text(max_size=3), max_size=12)


@given(pieces)
def test_any_text_is_read_without_an_error_and_is_either_whole_or_faulty(parts: list[str]) -> None:
    text = "".join(parts).encode(errors="surrogatepass")
    response = GRAMMAR.read(text)
    assert 0 <= response.boundary <= len(text)
    assert bool(response.faults) == (response.percept is None or response.answer is None)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_without_an_error(junk: bytes) -> None:
    assert GRAMMAR.read(junk).faults
