"""The paper's released sets: both notations are read, p* is found in each row by checking, and every valid solution is right."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image

from percasym import metrics
from percasym.config.schema import ConfigError
from percasym.spans.grammar import Grammar
from percasym.tasks.base import data_summary
from percasym.tasks.given import picture
from percasym.tasks.released.graphs import GraphNotation
from percasym.tasks.released.grids import GridNotation, from_text, to_text
from percasym.tasks.released.task import RELEASED, Hub
from percasym.types import Completion, Rollout, SampleKey

_spec = importlib.util.spec_from_file_location("released_rows", Path(__file__).with_name("released_rows.py"))
assert _spec and _spec.loader
released_rows = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(released_rows)

COUNTS = {"train_sft": 4, "train_rl": 2, "test": 3}
FORMS = [(puzzle, truth) for puzzle in ("sudoku", "graph_coloring") for truth in ("unsolved", "solution")]
SMALL = "1 - 3 4\n- - 2 1\n3 4 - -\n- - - 3"
SOLVED = "1 2 3 4\n4 3 2 1\n3 4 1 2\n2 1 4 2"
"""Not a solution: 2 stands twice in the last row."""
SOLUTION = "1 2 3 4\n4 3 2 1\n3 4 1 2\n2 1 4 3"
PATH = "A-B B-C C-D"


def key(index: int, split: str = "train_sft") -> SampleKey:
    return SampleKey(task="given", split=split, seed=0, index=index)


def hub(folder: Path, puzzle: str, truth: str, **options: Any) -> Hub:
    return Hub(path=str(released_rows.write_rows(folder / f"{puzzle}_{truth}", puzzle, truth, COUNTS)), preset=puzzle, **options)


def edited(folder: Path, puzzle: str, truth: str, split: str, **columns: Any) -> Hub:
    """The rows with the columns of the first row of a split replaced."""
    task = hub(folder, puzzle, truth)
    file = Path(task.path) / f"{split}.jsonl"
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([json.dumps(json.loads(first) | columns), *rest]) + "\n")
    return task


# Notations


@pytest.mark.parametrize(
    "text",
    [
        "[[1, 0, 3, 4], [0, 0, 2, 1], [3, 4, 0, 0], [0, 0, 0, 3]]",
        '[["1", "-", "3", "4"], ["-", "-", "2", "1"], ["3", "4", "-", "-"], ["-", "-", "-", "3"]]',
        "[[1, null, 3, 4],\n [null, null, 2, 1],\n [3, 4, null, null],\n [null, null, null, 3]]",
        "1-34\n--21\n34--\n---3",
        "1 . 3 4\n. . 2 1\n3 4 . .\n. . . 3",
        "```\n1 0 | 3 4\n0 0 | 2 1\n----+----\n3 4 | 0 0\n0 0 | 0 3\n```",
        "| 1 | - | 3 | 4 |\n| - | - | 2 | 1 |\n| 3 | 4 | - | - |\n| - | - | - | 3 |",
        "Row 1: 1 _ 3 4\nRow 2: _ _ 2 1\nRow 3: 3 4 _ _\nRow 4: _ _ _ 3",
        "1,0,3,4\n0,0,2,1\n3,4,0,0\n0,0,0,3",
    ],
)
def test_a_grid_is_read_in_every_notation(text: str) -> None:
    assert GridNotation().parse(text) == "1 - 3 4\n- - 2 1\n3 4 - -\n- - - 3"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1 - 3 4\n- - 2 1\n3 4 - -",
        "1 - 3 5\n- - 2 1\n3 4 - -\n- - - 3",
        "I see\n" + SMALL,
        SMALL + "\n\n" + SMALL,
        "1 - 3\n" + SMALL,
        "[[1, 2]]",
    ],
)
def test_what_is_not_exactly_one_grid_is_no_percept(text: str) -> None:
    assert GridNotation().parse(text) is None


def test_a_row_of_empty_cells_is_told_from_a_rule() -> None:
    # The second line of the first is a row; that of the second is a rule, without which there are four rows.
    assert from_text(GridNotation().parse("1-34\n----\n34--\n---3") or "") == (1, 0, 3, 4, 0, 0, 0, 0, 3, 4, 0, 0, 0, 0, 0, 3)
    assert from_text(GridNotation().parse("1-34\n--21\n----\n34--\n---3") or "") == (1, 0, 3, 4, 0, 0, 2, 1, 3, 4, 0, 0, 0, 0, 0, 3)


@pytest.mark.parametrize("size", [4, 6, 9])
def test_any_grid_survives_its_text_and_json(size: int) -> None:
    rng, notation = Random(size), GridNotation()
    for _ in range(50):
        cells = tuple(rng.choice([0, rng.randint(1, size)]) for _ in range(size * size))
        rows = [list(cells[start : start + size]) for start in range(0, len(cells), size)]
        assert (
            notation.parse(to_text(cells))
            == notation.parse(json.dumps(rows))
            == notation.parse(json.dumps(rows, indent=1))
            == to_text(cells)
        )


@pytest.mark.parametrize(
    "text",
    [
        '{"nodes": ["A", "B", "C", "D"], "edges": [["A", "B"], ["C", "B"], ["C", "D"]]}',
        '[["A", "B"], ["B", "C"], ["C", "D"]]',
        '["A-B", "B-C", "C-D"]',
        '{"A": ["B"], "B": ["A", "C"], "C": ["B", "D"], "D": ["C"]}',
        "A-B, B-C, C-D",
        "(A, B), (B, C), (C, D)",
        "Edges: (C,D) (A,B) (B,C)",
        "nodes: A B C D\nedges: A--B; B--C; C--D",
        "4: AB BC CD",
        "```\nA-B\nB-C\nC-D\n```",
    ],
)
def test_a_graph_is_read_in_every_notation(text: str) -> None:
    assert GraphNotation().parse(text) == PATH


@pytest.mark.parametrize("text", ["", "A-A", "the graph A-B", "A-B and more A-C", "A B C", "[[1, 2], [3]]"])
def test_what_is_not_exactly_one_graph_is_no_percept(text: str) -> None:
    assert GraphNotation().parse(text) is None


@pytest.mark.parametrize(
    "answer",
    ['{"A": "red", "B": "blue", "C": "red", "D": "blue"}', "A: 1, B: 2, C: 1, D: 2", "A1 B2 C1 D2", "[2, 1, 2, 1]",
     "A = x\nB = y\nC = x\nD = y", "```\nNode A: red\nNode B: green\nNode C: red\nNode D: green\n```",
     '{"coloring": {"A": 1, "B": 2, "C": 1, "D": 2}}'],
)  # fmt: skip
def test_any_optimal_coloring_is_right_in_every_notation(answer: str) -> None:
    assert GraphNotation().verify(PATH, answer)


@pytest.mark.parametrize(
    "answer",
    ["A: 1, B: 2, C: 3, D: 1", "A: 1, B: 1, C: 2, D: 1", "A: 1, B: 2, C: 1", "A: 1, B: 2, C: 1, D: 2, D: 1", "red blue", "", "A: 1 or so"],
)
def test_a_wrong_coloring_is_wrong(answer: str) -> None:
    assert not GraphNotation().verify(PATH, answer)


def test_agreement_is_that_of_the_generated_tasks() -> None:
    # One of 16 cells differs; two of three edges are common to both graphs, and both have four nodes.
    assert GridNotation().agreement(SMALL, SMALL.replace("1 - 3 4", "1 2 3 4")) == 15 / 16
    assert GraphNotation().agreement(PATH, "A-B B-C B-D") == pytest.approx(2 / 3)
    # Three of 2 * 3 / (3 + 2) edges, and three nodes beside four.
    assert GraphNotation().agreement(PATH, "A-B B-C") == pytest.approx(0.8 * 3 / 4)
    assert GraphNotation().agreement("1-2 2-3", "0-1 1-2") == pytest.approx(0.5)


# Rows


@pytest.mark.parametrize(("puzzle", "truth"), FORMS)
def test_the_unsolved_puzzle_is_p_star_whichever_column_states_it(puzzle: str, truth: str, tmp_path: Path) -> None:
    task = hub(tmp_path, puzzle, truth)
    same = hub(tmp_path, puzzle, "solution" if truth == "unsolved" else "unsolved")
    for split, number in COUNTS.items():
        assert sorted(item.percept for item in task.table.items[split]) == sorted(item.percept for item in same.table.items[split])
        for index in range(number):
            sample = task.sample(key(index, split))
            assert task.parse(sample.truth) == sample.truth and task.valid(sample.truth)
            assert task.right(key(index, split), sample.truth, sample.solution)
            assert not task.right(key(index, split), sample.truth, sample.truth), "the unsolved puzzle is no answer"
            read = Grammar().read((sample.demonstration.perception + sample.demonstration.reasoning).encode())
            assert (read.percept, read.answer, read.faults) == (sample.truth, sample.solution, ())
            assert ("we place it" in read.reasoning or "has a neighbor" in read.reasoning) == (split == "train_sft" or truth == "solution")
    said = data_summary(task.about())
    assert ("9 rows: p* is the unsolved puzzle in response, the solution is in ground_truth" in said) == (truth == "solution")
    assert ("4 rows: p* is the unsolved puzzle in ground_truth, the solution is in response" in said) == (truth == "unsolved")


def test_another_solution_than_that_of_the_row_is_right(tmp_path: Path) -> None:
    task = hub(tmp_path, "graph_coloring", "solution")
    sample = task.sample(key(0))
    renamed = sample.solution.replace("red", "mauve")
    assert renamed != sample.solution and task.right(key(0), sample.truth, renamed)
    notation = GridNotation()  # Two solutions: 3 and 4 may be exchanged in the last two columns.
    loose = "1 2 - -\n3 4 - -\n2 1 - -\n4 3 - -"
    first, second = "1 2 3 4\n3 4 1 2\n2 1 4 3\n4 3 2 1", "1 2 4 3\n3 4 2 1\n2 1 3 4\n4 3 1 2"
    assert notation.verify(loose, first) and notation.verify(loose, second) and not notation.verify(loose, SOLVED)


def test_a_response_in_the_notation_of_the_query_is_graded_like_any_other(tmp_path: Path) -> None:
    task = hub(tmp_path, "sudoku", "unsolved")
    sample = task.sample(key(0))
    stated = json.dumps([[0 if cell == "-" else int(cell) for cell in line.split()] for line in sample.truth.splitlines()])
    text = f"<perception>{stated}</perception> So <answer>```\n{sample.solution.replace(' ', '')}\n```</answer>"
    response = Grammar().read(text.encode())
    rollout = Rollout(prompt=sample.prompt, completion=Completion(ids=(), logprobs=None, finished=True), response=response, labels=())
    grade = metrics.grade(task, sample.truth, rollout)
    assert grade.perception and grade.outcome and grade.faithful and not grade.faults


SUDOKU, GRAPHS = "sudoku", "graph_coloring"


@pytest.mark.parametrize(
    ("puzzle", "truth", "split", "columns", "reason"),
    [
        (SUDOKU, "unsolved", "train_sft", {"response": ""}, "its response is empty, and rows of train_sft are trained on"),
        (SUDOKU, "unsolved", "test", {"ground_truth": "42"}, "none of its ground_truth, response and query states an unsolved puzzle"),
        (SUDOKU, "unsolved", "train_sft", {"response": "The grid is as shown."}, "its response states no complete answer"),
        (
            SUDOKU,
            "unsolved",
            "test",
            {"ground_truth": "1 2 3 -\n- - - -\n- - - 4\n- - - -"},
            "the puzzle in its ground_truth has no solution",
        ),
        (SUDOKU, "unsolved", "train_sft", {"ground_truth": SMALL}, "its response states another puzzle than its ground_truth"),
        (
            SUDOKU,
            "unsolved",
            "test",
            {"ground_truth": SMALL, "response": f"{SMALL}\n\n{SOLVED}"},
            "the answer in its response does not solve",
        ),
        (SUDOKU, "solution", "test", {"ground_truth": SOLUTION}, "states neither an unsolved puzzle nor an answer to that in its response"),
        (GRAPHS, "solution", "test", {"ground_truth": {"A": 1}}, "states neither an unsolved puzzle nor an answer to that in its response"),
        (
            SUDOKU,
            "unsolved",
            "test",
            {"ground_truth": f"{SMALL}\n\n{SOLUTION}", "response": SMALL},
            "its response states no complete answer",
        ),
        (SUDOKU, "unsolved", "test", {"ground_truth": SMALL, "response": f"{SOLUTION}\n\n{SMALL}"}, "states its answer before its puzzle"),
        (
            SUDOKU,
            "unsolved",
            "train_sft",
            {"ground_truth": SMALL, "response": f"{SMALL}\n\n{SOLUTION}"},
            "its response has no reasoning, and rows of train_sft train both perception and reasoning",
        ),
        (SUDOKU, "unsolved", "test", {"image": "gone.png"}, "is no file"),
        (SUDOKU, "unsolved", "test", {"image": "../outside.png"}, "lies outside"),
        (SUDOKU, "unsolved", "test", {"query": " "}, "its query is empty"),
    ],
)
def test_a_row_that_contradicts_itself_is_named(
    puzzle: str, truth: str, split: str, columns: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    task = edited(tmp_path, puzzle, truth, split, **columns)
    with pytest.raises(ValueError, match=f"{split}.jsonl, line 1: .*{reason}"):
        task.about()
    skipping = Hub(path=task.path, preset=task.preset, on_error="skip")
    assert skipping.about()["skipped"] == 1 and skipping.about()["rows"][split] == COUNTS[split] - 1


def test_a_picture_is_checked_and_read_in_one_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, decoded = [], []
    task = hub(tmp_path, "sudoku", "unsolved").checked(lambda texts, size: sizes.append(size))
    task.about()
    sizes.clear()
    real = picture._decoded
    monkeypatch.setattr(picture, "_decoded", lambda *arguments: decoded.append(1) or real(*arguments))
    sample = task.sample(key(0))
    assert len(decoded) == 1 and sizes == [Image.open(io.BytesIO(sample.prompt.image)).size]


def test_a_released_id_chooses_its_preset_and_any_other_has_none(tmp_path: Path) -> None:
    for name, preset in RELEASED.items():
        assert Hub(path=name)._preset == preset and Hub(path=name, preset="none").lacks == ("draw", "solve", "valid", "verify")
    assert Hub(path="someone/else").lacks == ("draw", "solve", "valid", "verify")
    assert Hub(path=next(iter(RELEASED))).lacks == ("draw",)
    with pytest.raises(ConfigError, match="nobody can draw a percept"):
        Hub(path=next(iter(RELEASED))).draw(SMALL, key(0))
    with pytest.raises(ValueError, match=r"task.boundary is for free text, and task.preset=sudoku reads puzzles"):
        Hub(path=next(iter(RELEASED)), boundary="x")


def test_puzzles_of_the_test_split_that_are_trained_on_are_counted(tmp_path: Path) -> None:
    folder = released_rows.write_rows(tmp_path, "sudoku", "unsolved", COUNTS, num=1)
    assert "Warning: 1 of 1 test puzzles are trained on, too." in Hub(path=str(folder), preset="sudoku").about()["notes"]


def test_a_picture_is_decoded_when_its_sample_is_needed(tmp_path: Path) -> None:
    task = hub(tmp_path, "sudoku", "unsolved")
    (Path(task.path) / "0.png").write_bytes(b"no picture")
    assert task.about()["rows"] == COUNTS
    broken = next(index for index in range(4) if task.table.item(key(index)).picture.name == "0.png")
    with pytest.raises(ValueError, match="is no whole picture"):
        task.sample(key(broken))
    assert all(task.sample(key(index)).prompt.image for index in range(4) if index != broken)


def test_pictures_of_the_package_datasets_stay_in_it_until_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    rng = Random(0)
    rows = [released_rows.sudoku_row(rng, index, "unsolved", 4) for index in range(4)]
    columns = {name: [row[name] for row in rows] for name in rows[0]} | {"image": [{"bytes": released_rows.picture(rng), "path": None}] * 4}
    read: list[int] = []

    class Counted(datasets.Dataset):
        """Counts rows that are read with their picture."""

        def __getitem__(self, index: int) -> Any:
            if "image" in self.column_names:
                read.append(index)
            return super().__getitem__(index)

    table = Counted(datasets.Dataset.from_dict(columns).data)
    monkeypatch.setattr(sys.modules["percasym.tasks.released.rows"], "_load_dataset", lambda path: {"train_sft": table})
    task = Hub(path="xqwu/asymmetric-VLM__sudoku")
    assert task.about()["rows"]["train_sft"] == 4 and not read
    assert task.sample(key(2)).prompt.image and len(read) == 1


def test_pictures_as_base64_are_decoded_when_a_sample_needs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from percasym.tasks.given import picture

    folder = released_rows.write_rows(tmp_path, "sudoku", "unsolved", COUNTS, inline=True)
    decoded: list[int] = []
    decode = picture._from_base64
    monkeypatch.setattr(picture, "_from_base64", lambda text: decoded.append(len(text)) or decode(text))
    task = Hub(path=str(folder), preset="sudoku")
    assert sum(task.about()["rows"].values()) == 9 and not decoded
    expected = json.loads((folder / "train_sft.jsonl").read_text().splitlines()[2])["image"]
    shown = task.sample(key(2)).prompt.image
    assert shown == base64.b64decode(expected) and len(decoded) == 1
    held = [item.picture for items in task.table.items.values() for item in items]
    assert held == [b""] * 9, "no picture is held in memory"


def test_a_file_of_rows_that_changes_after_its_check_is_named(tmp_path: Path) -> None:
    folder = released_rows.write_rows(tmp_path, "sudoku", "unsolved", COUNTS, inline=True)
    task = Hub(path=str(folder), preset="sudoku")
    assert task.about()
    (folder / "train_sft.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"train_sft\.jsonl, line 3: the file has changed since its rows were checked"):
        task.sample(key(2))


@pytest.mark.slow
@pytest.mark.parametrize("inline", [False, True], ids=["files", "base64"])
def test_twenty_thousand_rows_start_in_fifteen_seconds(inline: bool, tmp_path: Path) -> None:
    import time

    folder = released_rows.write_rows(
        tmp_path, "sudoku", "unsolved", {"train_sft": 15_000, "train_rl": 3_000, "test": 2_500}, pictures=False, inline=inline
    )
    began = time.process_time()
    assert sum(Hub(path=str(folder), preset="sudoku").about()["rows"].values()) == 20_500
    assert time.process_time() - began < 15


def test_graphs_and_colorings_in_json_are_read_or_refused_whole() -> None:
    notation = GraphNotation()
    for text in ('["A-B", "B-C", "C-D"]', '[["A", "B"], "B-C", ["C", "D"]]', '{"graph": {"A": ["B"], "B": ["C"], "C": ["D"]}}'):
        assert notation.parse(text) == PATH, text
    for text in ('{"edges": [["A", "B"], ["B"', '[["A", "B"], 3]', '{"A": 3}', "[]", "1: AB BC"):
        assert notation.parse(text) is None, text
    for answer in ('{"coloring": ["red", "blue", "red", "blue"]}', '["red", "blue", "red", "blue"]', "A1 B2 C1 D2", "[A:1, B:2]"):
        assert notation.verify(PATH, answer) == (answer != "[A:1, B:2]"), answer
    for answer in (
        '{"A": 1, "B"',
        '["red"]',
        '{"A": [1], "B": 2, "C": 1, "D": 2}',
        "A1 A2 C1 D2",
        '{"A": "a b", "B": 1, "C": "a b", "D": 1}',
    ):
        assert not notation.verify(PATH, answer) and not notation.answers(answer, PATH), answer


def test_a_graph_of_more_nodes_than_letters_is_neither_solved_nor_compared() -> None:
    notation, long = GraphNotation(), " ".join(f"{node}-{node + 1}" for node in range(1, 20))
    assert (notation.agreement(PATH, long), notation.solve(long), notation.valid(long), notation.verify(long, "1:1")) == (
        0.0,
        None,
        False,
        False,
    )
    assert not notation.valid("A-B C-D") and notation.valid(PATH), "a graph that is to be coloured is connected"


def test_what_states_no_grid_solves_none() -> None:
    assert not GridNotation().verify(SMALL, "no grid") and GridNotation().verify(SMALL, SOLUTION)
    assert GridNotation().parse("[[1,2,3,4],[1,2,3,4],[1,2,3,4],[1,2,3,9]]") is None, "9 is no digit of a 4 x 4 grid"
    assert GridNotation().parse("." * 81) == "\n".join([" ".join("-" * 9)] * 9)


def test_a_puzzle_is_judged_by_its_rules_and_free_text_is_not(tmp_path: Path) -> None:
    task = hub(tmp_path, "sudoku", "unsolved")
    assert task.solve(SMALL) == SOLUTION and task.verify(SMALL, SOLUTION) and task.valid(SMALL) and not task.valid("no grid")
    assert task.agreement(SMALL, SMALL) == 1.0 and task.parse(SMALL) == SMALL and task.canonical(SMALL) == task.canonical(SMALL)
    plain = Hub(path=task.path, preset="none")
    assert (plain.parse(" red  2 "), plain.canonical(" red  2 "), plain.agreement("red 2", "red 3")) == ("red 2", "red 2", 0.8)
    for call in (lambda: plain.verify(SMALL, SOLUTION), lambda: plain.solve(SMALL), lambda: plain.valid(SMALL)):
        with pytest.raises(ConfigError, match="were collected, not made: nobody can"):
            call()
    with pytest.raises(ValueError, match=r"task\.preset=sudoku reads rows with a ground_truth, and task\.format=columns has none\."):
        Hub(path=task.path, preset="sudoku", format="columns")


class Rows(list):
    """Rows as the package datasets has them."""

    def remove_columns(self, name: str) -> list[dict[str, Any]]:
        return [{key: value for key, value in row.items() if key != name} for row in self]


def test_a_set_may_lack_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = hub(tmp_path, "sudoku", "unsolved")
    (Path(task.path) / "train_rl.jsonl").unlink()
    assert task.about()["rows"] == COUNTS | {"train_rl": 0}
    rows = [json.loads(line) for line in (Path(task.path) / "test.jsonl").read_text().splitlines()]
    splits = {"test": Rows(rows)}
    monkeypatch.setattr(sys.modules["percasym.tasks.released.rows"], "_load_dataset", lambda path: splits)
    assert Hub(path="me/mine", preset="sudoku").about()["rows"] == {"train_sft": 0, "train_rl": 0, "test": 3}


def test_free_text_of_a_set_may_lack_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = base64.b64encode(released_rows.picture(Random(0))).decode()
    row = {"image": picture, "query": "?", "ground_truth": "<perception>two</perception><answer>2</answer>"}
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    assert Hub(path=str(tmp_path)).about()["rows"] == {"train_sft": 0, "train_rl": 0, "test": 1}
    splits = {"train_rl": [row]}
    monkeypatch.setattr(sys.modules["percasym.tasks.given.rows"], "_load_dataset", lambda path: splits)
    task = Hub(path="me/mine")
    assert task.about()["rows"] == {"train_sft": 0, "train_rl": 1, "test": 0}
    sample = task.sample(key(0, "train_rl"))
    assert (sample.truth, sample.solution, sample.demonstration.reasoning) == ("two", "2", "<answer>2</answer>")
    assert task.right(key(0, "train_rl"), "two", " 2 ") and not task.right(key(0, "train_rl"), "two", "3")


def test_rows_that_are_all_skipped_are_no_data(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text('{"query": "?"}\n')
    with pytest.raises(ValueError, match=r"has no rows\. The first of 1 that were skipped: .*test\.jsonl, line 1: it has no ground_truth"):
        Hub(path=str(tmp_path), preset="sudoku", on_error="skip").about()


def test_a_tagged_perception_that_is_no_puzzle_is_not_taken_for_reasoning(tmp_path: Path) -> None:
    response = f"<perception>a grid</perception>\nso\n{SOLUTION}"
    task = edited(tmp_path, "sudoku", "unsolved", "train_sft", ground_truth=SMALL, response=response)
    with pytest.raises(ValueError, match=r"train_sft\.jsonl, line 1: the perception that its response tags is no puzzle\."):
        task.about()


FREE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "an empty truth": ({"ground_truth": ""}, {}, "its ground_truth is empty."),
    "no percept": ({"ground_truth": {"answer": 2}}, {}, "its response is empty and its ground_truth names no percept. Set task.g"),
    "another form": (
        {"ground_truth": "two"}, {"ground_truth": "(?P<answer>[0-9]+)"}, "task.ground_truth='(?P<answer>[0-9]+)' matches nothing in its",
    ),
    "an empty question": ({"query": " "}, {}, "its query is empty."),
    "a number for a question": ({"query": 3}, {}, "its query must be text, got 3."),
    "pictures twice": ({"images": ["a.png"]}, {}, "it has both image and images; its columns are image, query, ground_truth, images."),
}  # fmt: skip


@pytest.mark.parametrize("what", FREE)
def test_a_row_of_free_text_that_cannot_be_read_is_named(tmp_path: Path, what: str) -> None:
    columns, options, reason = FREE[what]
    picture = base64.b64encode(released_rows.picture(Random(0))).decode()
    row = {"image": picture, "query": "?", "ground_truth": "<perception>two</perception><answer>2</answer>"} | columns
    (tmp_path / "test.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=r"test\.jsonl, line 1: ") as refused:
        Hub(path=str(tmp_path), **options).about()
    assert reason in str(refused.value)


def test_one_picture_and_question_stand_in_one_split(tmp_path: Path) -> None:
    picture = base64.b64encode(released_rows.picture(Random(0))).decode()
    row = {"image": picture, "query": "?", "ground_truth": "<perception>two</perception><answer>2</answer>"}
    for split in ("train_rl", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row | {"system": "Be brief."}) + "\n")
    with pytest.raises(ValueError, match=r"test\.jsonl, line 1: its picture and question stand in split train_rl too\."):
        Hub(path=str(tmp_path)).about()
    (tmp_path / "test.jsonl").unlink()
    task = Hub(path=str(tmp_path), ground_truth="<perception>(?P<percept>.*)</perception><answer>(?P<answer>.*)</answer>")
    sample = task.sample(key(0, "train_rl"))
    assert (sample.truth, sample.solution, sample.prompt.question) == ("two", "2", "Be brief.\n?")
