"""MM-HELIX and VGRP-Bench in each form in which they are written, and the rules of their questions; see outside_rows.py."""

from __future__ import annotations

import json
import re
from itertools import pairwise, permutations
from pathlib import Path
from random import Random
from typing import Any

import networkx as nx
import pytest

from percasym.metrics import grade
from percasym.spans.grammar import Grammar
from percasym.tasks.base import prompt_as_text
from percasym.tasks.outside import graphs
from percasym.tasks.outside.boards import BoardRule
from percasym.tasks.outside.files import outside_rows
from percasym.tasks.outside.graphs import RULES, Ends, UndecidedError, to_text
from percasym.tasks.outside.items import HELIX, VGRP
from percasym.tasks.outside.items import RULES as ALL_RULES
from percasym.tasks.outside.task import MmHelix, Vgrp
from percasym.types import Completion, Prompt, Rollout, SampleKey
from tests.unit.tasks.outside_rows import (
    RING,
    helix_rows,
    write_helix_annotations,
    write_helix_parquet,
    write_helix_tsv,
    write_vgrp,
    write_vgrp_tsv,
)

FORMS = {"tsv": write_helix_tsv, "annotations": write_helix_annotations, "parquet": write_helix_parquet}
NO_ENDS = Ends()


def key(task: Any, index: int, split: str = "test") -> SampleKey:
    return SampleKey(task=task.name, split=split, seed=0, index=index)


def graded(task: Any, index: int, percept: str, answer: str) -> Any:
    sample = task.sample(key(task, index))
    text = Grammar().perception(percept) + f"So.<answer>{answer}</answer>"
    rollout = Rollout(prompt=sample.prompt, completion=Completion(ids=(), logprobs=None, finished=True),
                      response=Grammar().read(text.encode()), labels=())  # fmt: skip
    return grade(task, sample.truth, rollout)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_mm_helix_gives_the_same_items(tmp_path: Path, form: str) -> None:
    task = MmHelix(path=str(FORMS[form](tmp_path, helix_rows())))
    about = task.about()
    assert about["rows"]["test"] == 8 and about["skipped"] == 0
    assert "Left out: 1 max_flow." in about["notes"]
    samples = [task.sample(key(task, index)) for index in range(8)]
    for index, sample in enumerate(samples):
        assert task.parse(sample.truth) == sample.truth and sample.prompt.image
        assert graded(task, index, sample.truth, sample.solution).outcome and graded(task, index, sample.truth, sample.solution).perception
        assert not graded(task, index, sample.truth, "5").outcome
    rows = {(row["question"].split("\n")[0], row["answer"]) for row in helix_rows()}
    assert {(sample.prompt.question.split("\n")[0], sample.solution) for sample in samples} == rows - {("How much?", "7")}


def test_the_same_item_is_asked_with_its_picture_and_in_words(tmp_path: Path) -> None:
    task = MmHelix(path=str(write_helix_tsv(tmp_path, helix_rows())), category=("sudoku",))
    sample = task.sample(key(task, 0))
    words = prompt_as_text(sample)
    assert words.image is None and words.question.startswith("Solve the 9x9 Sudoku; output 81") and ". " in words.question
    assert sample.prompt.question.startswith("Solve the 9x9 Sudoku in the image")
    for question in (sample.prompt.question, words.question):
        assert question.endswith("nothing before the first or after the last.") and "<perception>" in question
    bare = MmHelix(path=task.path, category=("sudoku",), instruction="")
    assert bare.sample(key(bare, 0)).prompt.question == helix_rows()[0]["question"]


def test_vgrp_is_read_as_its_data_set_and_as_vlmevalkit_write_it(tmp_path: Path) -> None:
    for path in (write_vgrp(tmp_path), write_vgrp_tsv(tmp_path)):
        task = Vgrp(path=str(path))
        assert task.about()["rows"]["test"] == 2
        for index in range(2):
            sample = task.sample(key(task, index))
            stars = json.dumps([[int(cell) if cell.isdecimal() else "*" for cell in line.split()] for line in sample.truth.splitlines()])
            assert task.parse(stars) == sample.truth, "VGRP-Bench writes * for an empty cell"
            assert graded(task, index, stars, sample.solution).outcome
            assert prompt_as_text(sample).question.endswith(sample.truth), "it has no question in words, so p* follows the question"
    assert "Left out: 2 coloredsudoku." in task.about()["notes"]


def test_faithfulness_is_judged_by_the_question_on_the_stated_graph(tmp_path: Path) -> None:
    task = MmHelix(path=str(write_helix_tsv(tmp_path, helix_rows())), category=("hamiltonian_cycle",))
    # The ring 0-1-2-3 was read as 0-2-1-3: [0, 2, 1, 3] is a cycle of what was read, and none of the ring.
    misread = "0: 2 3\n1: 2 3\n2: 0 1\n3: 0 1"
    found = graded(task, 0, misread, "[0, 2, 1, 3]")
    assert (found.outcome, found.perception, found.faithful) == (False, False, True)
    assert found.perception_graded == pytest.approx(0.5), "two of four edges, 2 * 2 / 8"
    assert graded(task, 0, misread, "No").faithful is False
    assert graded(task, 0, "0: 1\n1: 2", "No").faithful is True


@pytest.mark.parametrize("category", RULES)
def test_rules_agree_with_networkx_on_every_walk_of_small_graphs(category: str) -> None:
    rule, rng = RULES[category], Random(1)
    for _ in range(12):
        size = rng.randint(3, 5)
        kind = nx.DiGraph if rule.directed else nx.Graph
        graph = kind([(a, b) for a in range(size) for b in range(size) if a != b and rng.random() < (0.3 if rule.directed else 0.35)])
        graph.add_nodes_from(range(size))
        percept = to_text({str(node): tuple(sorted(map(str, graph.adj[node]))) for node in sorted(graph)}, directed=rule.directed)
        assert rule.parse(percept) == percept
        ends = Ends(start="0", target="2") if category == "connectivity_test" else NO_ENDS
        right = oracle(category, graph)
        assert rule.right(percept, "No", ends) == (right is not None and not right)
        walks = [walk for length in range(1, size + 1) for walk in permutations(range(size), length)]
        walks += [(*walk, walk[0]) for walk in walks if len(walk) > 2]
        for walk in walks:
            accepted = rule.right(percept, str(list(walk)), ends)
            if category == "connectivity_test":
                joined = nx.has_path(graph, 0, 2)
                path = walk[0] == 0 and walk[-1] == 2 and all(graph.has_edge(a, b) for a, b in pairwise(walk))
                assert accepted == (path if joined else walk == (nx.number_connected_components(graph),))
            elif right is not None and category.startswith(("hamiltonian", "topological")):
                assert accepted == (walk in right)


def oracle(category: str, graph: Any) -> set[tuple[int, ...]] | None:
    """Right walks by brute force or networkx; an empty set where there is none; None for connectivity, which "No" never answers."""
    orders = list(permutations(graph))
    if category == "topological_sort":
        return {o for o in orders if all(o.index(a) < o.index(b) for a, b in graph.edges)}
    steps = [(o, all(graph.has_edge(a, b) for a, b in pairwise(o))) for o in orders]
    if category == "hamiltonian_path":
        return {o for o, joined in steps if joined}
    if category == "hamiltonian_cycle":
        closed = {o for o, joined in steps if joined and graph.has_edge(o[-1], o[0]) and len(o) > 2}
        return closed | {(*o, o[0]) for o in closed}
    edges = graph.edge_subgraph(graph.edges)
    if category == "eulerian_path":
        return {(0,)} if edges and nx.has_eulerian_path(edges) else set()
    if category == "eulerian_cycle":
        return {(0,)} if edges and nx.is_eulerian(edges) else set()
    return None


def test_a_walk_along_each_edge_once_is_eulerian() -> None:
    # A triangle with a tail: 3-0-1-2-0 uses the four edges once; 0-1-2-0-3 too; 3-0-1-2 leaves one out.
    percept = "0: 1 2 3\n1: 0 2\n2: 0 1\n3: 0"
    rule = RULES["eulerian_path"]
    assert rule.right(percept, "[3, 0, 1, 2, 0]", NO_ENDS) and rule.right(percept, "0 -> 1 -> 2 -> 0 -> 3", NO_ENDS)
    assert not rule.right(percept, "[3, 0, 1, 2]", NO_ENDS) and not rule.right(percept, "[3, 0, 1, 2, 0, 3]", NO_ENDS)
    assert RULES["eulerian_cycle"].right(percept, "No", NO_ENDS) and not rule.right(percept, "No", NO_ENDS)


def test_a_named_start_counts() -> None:
    rule, ring = RULES["hamiltonian_path"], to_text({node: tuple(map(str, near)) for node, near in RING.items()})
    assert rule.right(ring, "[1, 2, 3, 0]", Ends(start="1")) and not rule.right(ring, "[0, 1, 2, 3]", Ends(start="1"))
    # A star with a path of two: 1-0-2 reaches all from 1, nothing does from 0.
    path = "0: 1 2\n1: 0\n2: 0"
    assert rule.right(path, "No", Ends(start="0")) and not rule.right(path, "No", Ends(start="1"))


def test_graphs_and_grids_are_read_in_the_forms_that_models_write() -> None:
    rule, star = RULES["hamiltonian_path"], "0: 1 2 3\n1: 0\n2: 0\n3: 0"
    for text in (
        star, '{"0": [1, 2, 3], "1": [0], "2": [0], "3": [0]}', "{0: [1, 2, 3]}", "```\n0: [1, 2, 3]\n1: [0]\n```",
        "- Node 0: 1, 2, 3\n- Node 1: 0\n- Node 2: 0\n- Node 3: 0", "0: 3, 2, 1",
    ):  # fmt: skip
        assert rule.parse(text) == star, text
    for text in ("", "0: 0", "0: [1", "a graph", "0: 1\n0: 2", "{}", "[0, 1]", "0: 1; 2", '{"0": 1}', "x" * 9000, "0 -> 1"):
        assert rule.parse(text) is None, text
    assert RULES["topological_sort"].parse("1 -> 0, 2\n2→0") == "0 ->\n1 -> 0 2\n2 -> 0"
    assert RULES["topological_sort"].parse("0: 1") is None, "a file may hold both kinds, and a percept alone says which it is"
    board = BoardRule()
    assert board.parse(r"\boxed{1 2 3 4 3 4 1 2 2 1 4 3 4 3 2 1}") == "1 2 3 4\n3 4 1 2\n2 1 4 3\n4 3 2 1"
    assert board.parse("1 * 3 4\n3 4 * 2\n2 1 4 3\n4 3 2 *") == "1 - 3 4\n3 4 - 2\n2 1 4 3\n4 3 2 -"
    assert board.parse("1 2 3 5 3 4 1 2 2 1 4 3 4 3 2 1") is None and board.parse("no") is None


def test_a_search_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_STATES", 50)
    nodes = [str(number) for number in range(12)]
    # Two complete halves that share no edge have no path through all; the search meets more than 50 states.
    halves = to_text({a: tuple(b for b in nodes if b != a and (int(a) < 6) == (int(b) < 6)) for a in nodes})
    with pytest.raises(UndecidedError, match="12 nodes"):
        RULES["hamiltonian_path"].decided(halves, "No", NO_ENDS)
    assert not RULES["hamiltonian_path"].right(halves, "No", NO_ENDS), "undecided is not right"


def test_bad_rows_are_one_sentence_with_their_place(tmp_path: Path) -> None:
    rows = helix_rows()
    cases: dict[str, dict[str, Any]] = {
        "its answer '1 2' is not right for its initial_state": {"answer": "1 2"},
        "its initial_state states no grid: 'none'": {"initial_state": "none"},
        "it has no question": {"question": ""},
        "its answer is empty": {"answer": ""},
    }
    for sentence, change in cases.items():
        path = write_helix_tsv(tmp_path, [{**rows[0], **change}, *rows[1:]])
        with pytest.raises(ValueError, match=sentence) as caught:
            MmHelix(path=str(path)).about()
        assert "MM-HELIX.tsv, line " in str(caught.value)
        skipping = MmHelix(path=str(path), on_error="skip").about()
        assert (skipping["rows"]["test"], skipping["skipped"]) == (7, 1)
    wrong = {**rows[2], "answer": "[1, 0, 2, 3]"}  # A star has no such path: node 0 would be passed twice.
    with pytest.raises(ValueError, match="is not right"):
        MmHelix(path=str(write_helix_tsv(tmp_path, [wrong]))).about()
    with pytest.raises(ValueError, match="no rows of sudoku; its rows are of max_flow"):
        MmHelix(path=str(write_helix_tsv(tmp_path, rows[-1:])), category=("sudoku",)).about()
    with pytest.raises(ValueError, match=r"task\.category must be among sudoku, .*, got 'maze'"):
        MmHelix(path="x", category=("maze",))
    with pytest.raises(ValueError, match="There is no file"):
        MmHelix(path=str(tmp_path / "missing.tsv")).about()
    (tmp_path / "double.tsv").write_text("index\tquestion\tquestion\n1\ta\tb\n")
    with pytest.raises(ValueError, match=r"double.tsv has more than one column 'question'. Leave one."):
        MmHelix(path=str(tmp_path / "double.tsv")).about()
    (tmp_path / "torn.tsv").write_text("index\tcategory\n1\n")
    with pytest.raises(ValueError, match="more or fewer cells than the header"):
        MmHelix(path=str(tmp_path / "torn.tsv")).about()
    task = MmHelix(path=str(write_helix_tsv(tmp_path, rows)))
    with pytest.raises(ValueError, match=r"has no rows of split train_sft\. Train on another task"):
        task.sample(key(task, 0, "train_sft"))


@pytest.mark.parametrize("kind", [MmHelix, Vgrp])
def test_a_picture_must_be_decoded_before_it_can_be_resized(kind: type) -> None:
    with pytest.raises(ValueError, match=r"task.max_decoded_pixels must be at least task.max_pixels=100, got 99: pictures are decoded"):
        kind(path="rows.tsv", max_pixels=100, max_decoded_pixels=99)


def test_a_picture_outside_the_folder_is_refused(tmp_path: Path) -> None:
    path = write_helix_tsv(tmp_path / "there", helix_rows()[:1]) if (tmp_path / "there").mkdir() is None else Path()
    moved = tmp_path / "here" / path.name
    moved.parent.mkdir()
    path.rename(moved)
    with pytest.raises(ValueError, match=r"lies outside .*task\.allow_outside=true"):
        MmHelix(path=str(moved)).about()
    assert MmHelix(path=str(moved), allow_outside=True).about()["rows"]["test"] == 1


def test_variants_of_sudoku_are_not_taken_for_sudokus(tmp_path: Path) -> None:
    path = write_vgrp(tmp_path)
    colored = path.parent.rename(tmp_path / "coloredsudoku_4x4") / path.name
    with pytest.raises(ValueError, match="has no rows of sudoku; its rows are of coloredsudoku"):
        Vgrp(path=str(colored)).about()
    unnamed = colored.parent.rename(tmp_path / "other") / path.name
    with pytest.raises(ValueError, match="Keep the name of its subset in the path, as sudoku_4x4"):
        Vgrp(path=str(unnamed)).about()
    rows = [json.loads(line) for line in unnamed.read_text().splitlines()]
    rows[0]["initialization"] = rows[0]["initialization"].replace("{'size'", "{'colors': [['A']], 'size'")
    named = unnamed.parent.rename(tmp_path / "sudoku_4x4") / path.name
    named.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match="has colors, so it is no plain Sudoku"):
        Vgrp(path=str(named)).about()


def test_what_needs_a_generator_is_refused(tmp_path: Path) -> None:
    from percasym.config.schema import ConfigError

    task = Vgrp(path=str(write_vgrp(tmp_path)))
    sample = task.sample(key(task, 0))
    for call in (lambda: task.draw(sample.truth, sample.prompt.key), lambda: task.solve(sample.truth), lambda: task.valid(sample.truth),
                 lambda: task.verify(sample.truth, sample.solution)):  # fmt: skip
        with pytest.raises(ConfigError):
            call()
    assert set(ALL_RULES) == {"sudoku", *RULES} and isinstance(sample.prompt, Prompt)


TABLES: dict[str, tuple[bytes, str]] = {
    "a quote inside a cell": (b'a\tb\n1\t"2"3\n', "rows.tsv, line 2 is not tab-separated text ('\t' expected after '\"')."),
    "no UTF-8": (b"a\tb\n\xff\t2\n", "rows.tsv is not UTF-8 text ('utf-8' codec can't decode byte 0xff"),
    "a long line": (b"a\n" + b"x" * 200 + b"\n", "rows.tsv has a line that is longer than task.max_bytes=100."),
}


@pytest.mark.parametrize("what", TABLES)
def test_a_table_that_cannot_be_read_is_one_sentence(tmp_path: Path, what: str) -> None:
    data, message = TABLES[what]
    (tmp_path / "rows.tsv").write_bytes(data)
    with pytest.raises(ValueError, match=r"rows\.tsv") as refusal:
        list(outside_rows(tmp_path / "rows.tsv", max_bytes=100))
    assert message in str(refusal.value)


def test_a_folder_is_the_table_or_the_annotations_in_it(tmp_path: Path) -> None:
    (tmp_path / "MM-HELIX.tsv").write_text("question\nWhich?\n")
    assert [row.raw for row in outside_rows(tmp_path, max_bytes=100)] == [{"question": "Which?"}]
    (tmp_path / "MM-HELIX.tsv").unlink()
    (tmp_path / "annotations.json").write_text(json.dumps([{"image": ["a.png"]}, {"image": ["a.png", 2]}, {"question": "?"}, 3]))
    read = [row.raw for row in outside_rows(tmp_path, max_bytes=100)]
    assert read == [{"image": [str(tmp_path / "a.png")]}, {"image": ["a.png", 2]}, {"question": "?"}, b"3"]


def test_a_row_without_its_puzzle_is_named() -> None:
    here = Path("sudoku_4x4")
    no_puzzle, no_solution = "its states or initialization is no puzzle with an initialization: ", "its initialization is no Sudoku with a "
    for record, sentence in (
        ({"prompt": "?"}, f"{no_puzzle}None."),
        ({"prompt": "?", "states": "[1]"}, f"{no_puzzle}[1]."),
        ({"prompt": "?", "states": {"initialization": "no"}}, f"{no_solution}solution: 'no'."),
        # Two 1 in the first row.
        ({"prompt": "?", "initialization": {"initialization": "1 1 3 4 - - - - - - - - - - - -"}}, f"{no_solution}solution: '1 1 3 4 -"),
    ):
        with pytest.raises(ValueError, match=re.escape(sentence)):
            VGRP.item(record, here, here)
    with pytest.raises(ValueError, match=r"it has no category; its columns are question\."):
        HELIX.category({"question": "?"}, here)
    with pytest.raises(ValueError, match=r"it has no column image or file_name or image_path with a picture; its columns are prompt, "):
        VGRP.item({"prompt": "?", "initialization": {"initialization": "1 - 3 4 - - 2 1 3 4 - - - - - 3"}, "image": []}, here, here)


def test_a_row_without_category_is_refused_with_its_line(tmp_path: Path) -> None:
    path = write_helix_tsv(tmp_path, [{**helix_rows()[0], "category": ""}])
    with pytest.raises(ValueError, match=r"MM-HELIX\.tsv, line \d+: it has no category; its columns are index, question"):
        MmHelix(path=str(path)).about()


def test_what_is_too_large_or_no_answer_is_not_read() -> None:
    rule, pair = RULES["hamiltonian_path"], "0: 1\n1: 0"
    assert rule.canonical({str(node): [] for node in range(65)}) is None and rule.canonical({"0": []}) == "0:"
    assert BoardRule().parse("1" * 5000) is None
    for answer in ("0, " * 4000 + "1", "a walk?"):
        assert not rule.right(pair, answer, NO_ENDS)
    assert rule.right(pair, "No", Ends(start="7")), "no path starts at a node that is not there"
    assert [graphs.adjacency(value) for value in ({"0": 1}, {"0": ["a b"]}, [])] == [None] * 3


def test_percepts_of_two_kinds_do_not_agree(tmp_path: Path) -> None:
    task = MmHelix(path=str(write_helix_tsv(tmp_path, helix_rows())))
    truths = [task.truth(key(task, index)) for index in range(8)]
    assert truths == [task.sample(key(task, index)).truth for index in range(8)]
    sudoku, graph = next(text for text in truths if "0" not in text), next(text for text in truths if "0:" in text)
    assert (task.agreement(sudoku, graph), task.agreement(graph, graph)) == (0.0, 1.0)
    assert task.canonical(graph) == graph
    (tmp_path / "images" / "MM-HELIX" / "sudoku" / "0_0.png").unlink()
    with pytest.raises(ValueError, match=r"its image .*0_0\.png is no file\."):
        MmHelix(path=task.path, category=("sudoku",)).about()
    asked = MmHelix(path=task.path, category=("hamiltonian_path",), instruction="Answer in one word.")
    assert asked.sample(key(asked, 0)).prompt.question.endswith("\nAnswer in one word.")
