"""What a released set or a model may say of a puzzle: no text makes the notations fail, and what they accept is what they promise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from percasym.tasks.released.found import Notation
from percasym.tasks.released.graphs import GraphNotation
from percasym.tasks.released.grids import GridNotation
from percasym.tasks.released.rows import parse_row
from tests.fuzz.conftest import cases, damaged

GRID = "1 - 3 4\n- - 2 1\n3 4 - -\n- - - 3"
FULL = "1 2 3 4\n4 3 2 1\n3 4 1 2\n2 1 4 3"
STATEMENTS = [
    f"The grid:\n```\n{GRID}\n```\nSo it is\n```\n{FULL}\n```",
    "[[1, 0, 3, 4], [0, 0, 2, 1], [3, 4, 0, 0], [0, 0, 0, 3]]",
    '{"nodes": [1, 2, 3], "edges": [[1, 2], [2, 3]], "coloring": {"1": "a", "2": "b", "3": "a"}}',
    "Edges: (A, B), (B, C)\nNode A: red\nNode B: blue\nNode C: red",
    "```\nA-B\nB-C\n```\nA1 B2 C1",
]
NOTATIONS: Sequence[Notation] = (GridNotation(), GraphNotation())
letters = st.text("0123456789-|[](){},:;ABC \n`\"'edgsno", max_size=60)
texts = damaged([text.encode() for text in STATEMENTS]).map(lambda raw: raw.decode(errors="replace")) | letters | st.text(max_size=40)


@cases()
@given(text=texts, other=texts)
def test_a_percept_is_canonical_wherever_it_is_found(text: str, other: str) -> None:
    for notation in NOTATIONS:
        stated = notation.parse(text)
        assert stated is None or notation.parse(stated) == stated
        for one in notation.percepts(text):
            assert notation.parse(one.text) == one.text and 0 <= one.start < one.end <= len(text)
            assert notation.agreement(one.text, one.text) in (0.0, 1.0), "0 for a graph of more nodes than are graded"
            assert notation.verify(one.text, other) in (True, False)
            solution = notation.solve(one.text) if notation.valid(one.text) else None
            assert solution is None or notation.verify(one.text, solution)


@cases()
@given(truth=texts, response=texts, query=texts)
@example(truth=STATEMENTS[0], response=STATEMENTS[1], query="?")  # A solution beside p* in ground_truth, and none in the response.
def test_a_row_is_read_or_refused_with_a_sentence(truth: str, response: str, query: str) -> None:
    record = {"image": b"x", "ground_truth": truth, "response": response, "query": query}
    refusals = list[str]()
    for notation in NOTATIONS:
        try:
            puzzle = parse_row(record, notation, folder=Path(), trained=False)
        except ValueError as error:
            refusals.append(str(error))
            continue
        assert notation.verify(puzzle.percept, puzzle.answer) and notation.parse(puzzle.percept) == puzzle.percept
    assert all(refusal.endswith(".") for refusal in refusals)
