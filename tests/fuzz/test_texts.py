"""What a model may say: no bytes make the grammar or a task's parsers fail, and what they accept is what they promise."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from percasym.spans.codec import label_tokens
from percasym.spans.grammar import Grammar
from percasym.tasks.given.item import split_response, tidy
from percasym.tasks.given.task import similarity
from percasym.tasks.graph_coloring.task import GraphColoring
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import SampleKey, Span
from tests.fuzz.conftest import cases, damaged

GRAMMAR = Grammar()
TASKS = (Sudoku(), GraphColoring())
SAMPLES = {task: [task.sample(SampleKey(task=task.name, split="test", seed=0, index=index)) for index in range(8)] for task in TASKS}
RESPONSES = [
    (sample.demonstration.perception + sample.demonstration.reasoning).encode() for samples in SAMPLES.values() for sample in samples[:4]
]
pieces = st.lists(
    st.sampled_from([tag.encode() for tag in GRAMMAR.tags]) | st.sampled_from([b" ", b"\n", b"<", b"\xff"]) | st.binary(max_size=6)
)
texts = damaged(RESPONSES) | pieces.map(b"".join) | st.binary(max_size=80)


@cases()
@given(text=texts, finished=st.booleans())
@example(text=b"\x1c<perception>1</perception><answer>2</answer>", finished=True)  # White space of Unicode's, but not of ASCII's.
def test_the_grammar_reads_any_bytes(text: bytes, finished: bool) -> None:
    read = GRAMMAR.read(text, finished=finished)
    assert 0 <= read.boundary <= len(text)
    assert read.boundary == GRAMMAR.boundary(text)
    if read.percept is not None:
        assert text[: read.boundary].decode().lstrip() == GRAMMAR.perception(read.percept)
    if read.percept is not None and read.answer is not None and not read.faults:
        whole = GRAMMAR.perception(read.percept) + GRAMMAR.demonstrate("", read.reasoning, read.answer).reasoning
        assert text.decode().strip() == whole.strip(), "nothing but its parts"
    assert (read.percept is None or read.answer is None) == bool(read.faults), "what is not read has a name"


@cases()
@given(text=texts, cuts=st.lists(st.integers(0, 80), max_size=8))
def test_every_token_lies_in_one_span(text: bytes, cuts: list[int]) -> None:
    ends = sorted({min(cut, len(text)) for cut in cuts} | {len(text)})
    tokens = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    boundary = GRAMMAR.boundary(text)
    labels = label_tokens(tokens, boundary)
    assert len(labels) == len(tokens)
    assert list(labels) == sorted(labels), "perception first"
    seen = sum(len(token) for token, label in zip(tokens, labels, strict=True) if label == Span.perception)
    assert seen >= min(boundary, len(text)), "all of the perception span is labelled so"


@st.composite
def stated(draw: st.DrawFn, part: str) -> tuple[Sudoku | GraphColoring, str, str]:
    """A task, a true percept of it, and a damaged percept (`truth`) or answer (`solution`)."""
    task = draw(st.sampled_from(TASKS))
    sample = draw(st.sampled_from(SAMPLES[task]))
    others = [getattr(other, part).encode() for other in SAMPLES[task]]
    return task, sample.truth, draw(damaged(others) | st.binary(max_size=40)).decode(errors="replace")


@cases()
@given(stated("truth"))
def test_a_stated_percept_is_canonical_or_nothing(said) -> None:
    task, truth, text = said
    found = task.parse(text)
    assert task.verify(text, text) is False or found is not None
    assert 0 <= task.agreement(truth, text) <= 1
    assert (task.agreement(truth, text) == 1) == (found == truth)
    if found is None:
        assert not task.valid(text)
        assert task.solve(text) is None
    else:
        assert task.parse(found) == found
        task.canonical(found)
        solution = task.solve(found)
        assert solution is None or task.verify(found, solution)


@cases()
@given(stated("solution"))
def test_an_answer_is_right_or_wrong(said) -> None:
    task, truth, text = said
    right = task.verify(truth, text)
    assert isinstance(right, bool)
    assert not right or task.verify(truth, text + "\n"), "white space at the end is no mistake"


@cases()
@given(text=texts.map(lambda data: data.decode(errors="replace")), answer=st.none() | st.text(max_size=6))
def test_a_collected_response_is_read_whole_or_refused(text: str, answer: str | None) -> None:
    try:
        percept, reasoning, stated_answer = split_response(text, None, answer)
    except ValueError:
        return
    assert all(tag not in percept + stated_answer for tag in GRAMMAR.tags)
    assert percept in text and reasoning in text


@cases()
@given(st.text(max_size=20), st.text(max_size=20))
def test_similarity_of_any_texts_is_symmetric_and_one_only_for_equal_texts(one: str, two: str) -> None:
    assert 0 <= similarity(one, two) == similarity(two, one) <= 1
    assert (similarity(one, two) == 1) == (one == two)
    assert tidy(tidy(one)) == tidy(one)
