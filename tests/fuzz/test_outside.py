"""What a benchmark's file or a model may say of a graph or a grid: nothing makes the readers fail, and what they accept is canonical."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from percasym.tasks.outside.files import outside_rows
from percasym.tasks.outside.graphs import Ends
from percasym.tasks.outside.items import HELIX, RULES, VGRP
from tests.fuzz.conftest import cases, damaged

STATEMENTS = [
    "0: 1 2\n1: 0\n2: 0", "{0: [1, 2], 1: [0]}", '{"0": [1]}', "0 -> 1 2\n1 ->", "[0, 1, 2]", "0 -> 1 -> 2", "No", r"\boxed{[0, 1]}",
    "1 * 3 4\n3 4 * 2\n2 1 4 3\n4 3 2 *", "1 2 3 4 3 4 1 2 2 1 4 3 4 3 2 1", "{'size': 4, 'initialization': [[1, 0], [0, 1]]}",
]  # fmt: skip
letters = st.text("0123456789:-[](){},'\"> \nNo*.", max_size=60)
texts = damaged([text.encode() for text in STATEMENTS]).map(lambda raw: raw.decode(errors="replace")) | letters | st.text(max_size=40)


@cases()
@given(text=texts, other=texts, answer=texts)
def test_a_percept_is_canonical_and_every_answer_is_graded(text: str, other: str, answer: str) -> None:
    for name, rule in RULES.items():
        stated, second = rule.parse(text), rule.parse(other)
        if stated is None:
            continue
        assert rule.parse(stated) == stated, name
        assert rule.right(stated, answer, Ends(start="0", target="2")) in (True, False)
        if second is not None:
            assert 0 <= rule.agreement(stated, second) <= 1 and (rule.agreement(stated, second) == 1) == (stated == second), name


@cases()
@given(category=st.sampled_from(sorted(RULES)), question=texts, state=texts | st.dictionaries(texts, st.lists(texts)), answer=texts)
def test_a_row_is_read_or_refused_with_a_sentence(category: str, question: str, state: object, answer: str) -> None:
    record = {"category": category, "question": question, "initial_state": state, "answer": answer, "image": "0.png", "prompt": question}
    refusals = list[str]()
    for benchmark, own in ((HELIX, record), (VGRP, {**record, "category": "sudoku_4x4", "states": state})):
        try:
            item = benchmark.item(own, Path(), Path("sudoku_4x4"))
        except ValueError as error:
            refusals.append(str(error))
            continue
        assert RULES[item.category].decided(item.percept, item.answer, item.ends)
    assert all(refusal.startswith(("it ", "its ")) or "was not decided" in refusal for refusal in refusals), refusals


@cases()
@given(content=damaged([b"index\tcategory\tquestion\n1\tsudoku\twhat?\n", b'a\tb\n"1\n2"\t3\n']) | st.binary(max_size=80))
def test_a_tsv_of_any_bytes_is_read_or_refused(tmp_path_factory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.tsv"
    path.write_bytes(content)
    refusals = list[str]()
    try:
        for row in outside_rows(path, max_bytes=64):
            assert row.split == "test" and row.record is not None
    except ValueError as error:
        refusals.append(str(error))
    assert all(str(path) in refusal for refusal in refusals), refusals
