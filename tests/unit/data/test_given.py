"""Collected rows as a task: every column layout gives the same samples, and every defect is reported in one sentence."""

from __future__ import annotations

import base64
import io
import json
import random
import zlib
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from percasym import metrics
from percasym.config.schema import ConfigError
from percasym.rewards import registry
from percasym.rewards.blindfold_self import BlindfoldSelf
from percasym.rewards.consensus import Consensus
from percasym.rewards.rerender import Rerender
from percasym.spans.grammar import Grammar
from percasym.tasks.base import SKILLS, data_summary, require_rows
from percasym.tasks.given.item import same_words, tidy
from percasym.tasks.given.rows import SPLITS
from percasym.tasks.given.task import Given, similarity
from percasym.tasks.released.task import Hub
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import Completion, Rollout, SampleKey


def key(index: int, split: str = "train_sft", seed: int = 0) -> SampleKey:
    return SampleKey(task="given", split=split, seed=seed, index=index)


def first(task: Given) -> SampleKey:
    """The key of the first row of whichever split has one."""
    return key(0, next(split for split, items in task.table.items.items() if items))


def content(task: Given) -> set[tuple[str, ...]]:
    """All texts of all rows."""
    return {item.texts for items in task.table.items.values() for item in items}


# Columns


def test_three_ways_to_write_a_row_give_the_same_sample(row: Callable, write: Callable) -> None:
    columns = row(3)
    prompt = {name: columns[name] for name in ("image", "query")}
    tagged = prompt | {"response": "<perception>red 3</perception> I count. <answer>3</answer>"}
    untagged = prompt | {"response": "red 3\nREASONING: I count. ", "answer": "3"}
    tasks = [
        Given(path=write([columns], "a.jsonl")),
        Given(path=write([tagged], "b.jsonl")),
        Given(path=write([untagged], "c.jsonl"), boundary=r"\nREASONING:"),
    ]
    one, *others = [task.sample(first(task)) for task in tasks]
    assert (one.truth, one.solution, one.prompt.question) == ("red 3", "3", "What is in picture 3?")
    assert one.demonstration.perception + one.demonstration.reasoning == tagged["response"]
    assert others == [one, one]


def test_a_picture_is_a_path_or_base64_or_a_data_uri(row: Callable, write: Callable, tmp_path: Path) -> None:
    columns = row(3)
    data = (tmp_path / columns["image"]).read_bytes()
    bare = base64.b64encode(data).decode()
    for image in (columns["image"], str(tmp_path / columns["image"]), bare, f"data:image/png;base64,{bare}"):
        task = Given(path=write([columns | {"image": image}], f"{abs(hash(image))}.jsonl"))
        assert task.sample(first(task)).prompt.image == data, "a PNG stays as it is"


def test_other_formats_become_png(row: Callable, write: Callable, encoded: Callable, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(encoded(200, "JPEG"))
    task = Given(path=write([row(1, image="photo.jpg")]))
    picture = Image.open(io.BytesIO(task.sample(first(task)).prompt.image))
    assert (picture.format, picture.mode, picture.getpixel((0, 0))) == ("PNG", "RGB", (200, 200, 200))


# Splits


def test_rows_are_dealt_by_content_whatever_their_order(row: Callable, write: Callable) -> None:
    rows = [row(number) for number in range(60)]
    one, other = Given(path=write(rows, "a.jsonl")), Given(path=write(random.Random(0).sample(rows, 60), "b.jsonl"))
    for split in SPLITS:
        assert {item.texts for item in one.table.items[split]} == {item.texts for item in other.table.items[split]} != set()
    assert sum(len(items) for items in one.table.items.values()) == 60


def test_equal_pictures_and_questions_lie_in_one_split(row: Callable, write: Callable) -> None:
    rows = [row(number, reasoning=f" {reasoning} ") for number, reasoning in product(range(20), ("one", "two", "three"))]
    table = Given(path=write(rows)).table
    owners = [{item.query for item in items} for items in table.items.values()]
    assert sum(map(len, owners)) == len(set().union(*owners)) == 20


def test_a_sample_is_a_pure_function_of_its_key_and_a_pass_shows_every_row_once(row: Callable, write: Callable) -> None:
    task = Given(path=write([row(number) for number in range(40)]))
    num = len(task.table.items["train_sft"])
    passes = [[task.truth(key(lap * num + place, seed=seed)) for place in range(num)] for lap, seed in ((0, 0), (1, 0), (0, 1))]
    assert all(sorted(found) == sorted(passes[0]) and len(set(found)) == num for found in passes)
    assert passes[0] != passes[1] != passes[2] != passes[0], "each pass has an order of its own"
    assert task.sample(key(5)) == Given(path=task.path, on_error="skip").sample(key(5)), "read again, the same"
    assert task.sample(key(5)).truth == task.truth(key(5))


def test_rows_of_one_picture_and_question_are_one_puzzle_whatever_they_answer(row: Callable, write: Callable) -> None:
    task = Given(path=write([row(number, reasoning=reasoning) for number, reasoning in product(range(10), ("one", "two"))]))
    samples = [task.sample(key(index)) for index in range(len(task.table.items["train_sft"]))]
    pairs = {(sample.puzzle, sample.prompt.question) for sample in samples}
    assert len({puzzle for puzzle, _ in pairs}) == len(pairs) == len(samples) / 2


def test_the_test_split_is_never_counted_twice(row: Callable, write: Callable) -> None:
    task = Given(path=write([row(number) for number in range(40)]))
    num = len(task.table.items["test"])
    assert len({task.truth(key(index, "test")) for index in range(num)}) == num
    with pytest.raises(ValueError, match=rf"has {num} test rows, and sample {num + 1} of them was asked for. Set evaluation.num_samples"):
        task.sample(key(num, "test"))


def test_a_split_without_rows_is_named(row: Callable, write: Callable) -> None:
    with pytest.raises(ValueError, match=r"has no rows of split base \(rows: train_sft \d, train_rl \d, test \d\)"):
        Given(path=write([row(1)])).sample(key(0, "base"))


# What is wrong with a row

BAD: dict[str, tuple[Any, str]] = {
    "no JSON": ("{not json", "it is not JSON"),
    "no object": ("[1, 2]", "it is no JSON object, got list."),
    "nested too deeply": ("[" * 40_000, "it is "),
    "too long": ('{"query": "' + "x" * 60_000 + '"}', "it is longer than task.max_bytes."),
    "a null answer": ({"answer": None}, "it has no column answer; its columns are image, query, perception, reasoning."),
    "an empty answer": ({"answer": " "}, "its answer is empty."),
    "a truth value for an answer": ({"answer": True}, "its answer must be text, got True."),
    "a number for a percept": ({"perception": 3}, "its perception must be text, got 3."),
    "a tag in the percept": ({"perception": "a</perception>b"}, "The percept of a demonstration contains a tag"),
    "no such picture": ({"image": "nowhere.png"}, "nowhere.png cannot be read (No such file or directory)."),
    "a folder for a picture": ({"image": "./"}, "is a folder, not a regular file."),
    "no base64": ({"image": "data:image/png;base64,not base64!"}, "its image is not base64"),
    "base64 of no picture": ({"image": base64.b64encode(b"hello").decode()}, "If it is base64, it is not that of a picture."),
    "a number for a picture": ({"image": [1]}, "its image must be a path or base64, got 1."),
    "two pictures": ({"image": ["a.png", "b.png"]}, "it has 2 pictures, and one picture is trained for each row."),
    "no picture": ({"image": []}, "it has 0 pictures, and one picture is trained for each row."),
    "a web address": ({"image": "https://example.com/a.png"}, "its image is a web address (https://example.com/a.png), and nothing is dow"),
    "the drive of another machine": ({"image": "C:\\data\\a.png"}, "names a drive of a Windows machine"),
    "a picture outside the folder": ({"image": "../outside.png"}, "Move it there, or set task.allow_outside=true."),
    "an untagged response": ({"response": "red"}, "its response cannot be read: no perception is stated. Tag it, or set task.boundary."),
    "an answer that the response contradicts": (
        {"response": "<perception>red</perception><answer>4</answer>"},
        "its answer is '2', and its response says '4'.",
    ),
    "a perception that the response contradicts": (
        {"perception": "red 9", "reasoning": None, "response": "<perception>red 2</perception> I count. <answer>2</answer>"},
        "its perception is 'red 9', and its response says 'red 2'.",
    ),
    "a reasoning that the response contradicts": (
        {"reasoning": "I guess.", "response": "<perception>red 2</perception> I count. <answer>2</answer>"},
        "its reasoning is 'I guess.', and its response says ' I count. '.",
    ),
    "a key twice": ('{"query": "a", "query": "b"}', "it has the key 'query' 2 times. Leave it once."),
    "a key twice in a message": ('{"messages": [{"role": "user", "role": "assistant"}]}', "it has the key 'role' 2 times. Leave it once."),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_one_bad_row_is_reported_with_its_line_or_left_out_and_counted(row: Callable, write: Callable, what: str) -> None:
    bad, message = BAD[what]
    path = write([row(1), bad if isinstance(bad, str) else row(2) | bad, row(3)])
    with pytest.raises(ValueError, match=r"rows.jsonl, line 2: ") as refusal:
        assert Given(path=path, max_bytes=50_000).table
    assert message in str(refusal.value)
    assert str(refusal.value).endswith("Correct the row, or set task.on_error=skip.")
    task = Given(path=path, max_bytes=50_000, on_error="skip")
    assert {texts[1] for texts in content(task)} == {"red 1", "red 3"}
    assert task.about()["skipped"] == 1
    assert "1 skipped" in data_summary(task.about()) and "line 2: " in data_summary(task.about())


@pytest.mark.parametrize(("element", "kind"), [("5", "int"), ("null", "NoneType"), ('"a"', "str"), ("[1]", "list")])
def test_an_element_of_an_array_that_is_no_object_is_said_to_be_none(row: Callable, tmp_path: Path, element: str, kind: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(f"[{json.dumps(row(1))},\n{element}]")
    with pytest.raises(ValueError, match=rf"rows.json, line 2: it is no JSON object, got {kind}\."):
        assert Given(path=str(path)).table


def test_the_reason_of_a_broken_picture_is_the_same_in_every_run(row: Callable, write: Callable, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="is no whole picture of") as refusal:
        assert Given(path=write([row(1), row(2) | {"image": "broken.png"}])).table
    assert " at 0x" not in str(refusal.value)


def test_columns_that_agree_with_the_response_are_taken(row: Callable, write: Callable) -> None:
    response = "<perception>red  1</perception>\nI count.<answer>1</answer>"
    assert content(Given(path=write([row(1) | {"response": response}], "both.jsonl"))) == content(
        Given(path=write([row(1) | {"perception": "red 1", "reasoning": "\nI count."}]))
    )


@pytest.mark.parametrize(
    "empty", [{"reasoning": " "}, {"reasoning": None, "response": "<perception>red 2</perception> <answer>2</answer>"}]
)
def test_an_empty_reasoning_is_refused_where_it_is_trained(row: Callable, write: Callable, empty: dict) -> None:
    rows = [row(1) | {"split": "train"}, row(2) | empty | {"split": "test"}]
    assert Given(path=write(rows)).about()["rows"] == {"train_sft": 1, "train_rl": 0, "test": 1}
    rows[1]["split"] = "train"
    with pytest.raises(
        ValueError, match=r"line 2: its reasoning is empty, and rows of train_sft train both perception and reasoning\. Corr"
    ):
        assert Given(path=write(rows, "trained.jsonl")).table


@pytest.mark.parametrize(
    ("boundary", "part"), [("$", "reasoning"), (r"\s*\Z", "reasoning"), ("^", "perception"), ("(?P<percept>)(?P<reasoning>.*)", "perc")]
)
def test_a_boundary_that_leaves_one_part_empty_is_refused(row: Callable, write: Callable, boundary: str, part: str) -> None:
    columns = {name: value for name, value in row(1).items() if name in ("image", "query", "answer")}
    with pytest.raises(ValueError, match=rf"line 1: task.boundary=.* leaves no {part}.* in its response, and both are trained: 'red 1"):
        assert Given(path=write([columns | {"response": "red 1, I count."}]), boundary=boundary).table


def test_a_repeated_key_in_an_array_has_its_line_and_can_be_skipped(row: Callable, tmp_path: Path) -> None:
    good, bad = json.dumps(row(1)), json.dumps(row(2)).replace('"answer"', '"query"')
    (tmp_path / "rows.json").write_text(f"[\n{bad},\n{good}\n]")
    with pytest.raises(ValueError, match=r"rows.json, line 2: it has the key 'query' 2 times\. Leave it once\. Correct the row, or set"):
        assert Given(path=str(tmp_path / "rows.json")).table
    task = Given(path=str(tmp_path / "rows.json"), on_error="skip")
    assert ({texts[1] for texts in content(task)}, task.about()["skipped"]) == ({"red 1"}, 1)


def test_two_columns_of_one_name_in_parquet_are_refused(row: Callable, tmp_path: Path) -> None:
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    values = {**row(1), "again": "other"}
    table = pyarrow.table([[value] for value in values.values()], names=["query" if name == "again" else name for name in values])
    parquet.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"rows.parquet has more than one column 'query'. Leave one."):
        assert Given(path=str(tmp_path / "rows.parquet")).table


def test_a_missing_column_is_named(row: Callable, write: Callable) -> None:
    columns = row(1)
    del columns["reasoning"]
    with pytest.raises(ValueError, match="line 1: it has no column reasoning; its columns are image, query, perception, answer"):
        assert Given(path=write([columns])).table


def test_a_boundary_that_has_nothing_to_cut_is_not_passed_over(row: Callable, write: Callable) -> None:
    with pytest.raises(ValueError, match=r"line 1: it has no response that task.boundary could cut; its columns are image, query, perc"):
        assert Given(path=write([row(1)]), boundary="Reasoning:").table


def test_a_decompression_bomb_is_refused_before_it_is_decoded(row: Callable, write: Callable, tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    for side, message in ((60_000, "more pixels than PIL decodes"), (9_000, "has 9000 x 9000 pixels, and task.max_decoded_pixels=67")):
        header = side.to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"  # A few bytes that claim gigabytes: 8 bits, RGB.
        bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\x00" * 1000)) + chunk(b"IEND", b"")
        (tmp_path / "bomb.png").write_bytes(bomb)
        with pytest.raises(ValueError, match=message):
            assert Given(path=write([row(1, image="bomb.png")], f"{side}.jsonl")).table


def test_a_picture_cut_short_is_noticed_before_training(row: Callable, write: Callable, tmp_path: Path) -> None:
    columns = row(1)
    whole = (tmp_path / columns["image"]).read_bytes()
    (tmp_path / columns["image"]).write_bytes(whole[: len(whole) // 2 + 10])
    with pytest.raises(ValueError, match=r"line 1: its image .* is no whole picture"):
        assert Given(path=write([columns])).table


def test_a_file_that_is_not_there_or_empty_is_one_sentence(write: Callable) -> None:
    with pytest.raises(ValueError, match=r"There is no file /nowhere.jsonl. Give task.path a file of JSON lines, a JSON array or Parquet."):
        assert Given(path="/nowhere.jsonl").table
    with pytest.raises(ValueError, match=r"rows.jsonl has no rows."):
        assert Given(path=write(["", "  "])).table
    with pytest.raises(ValueError, match=r"task.path=https://a.b/rows.jsonl is a web address, and nothing is downloaded."):
        Given(path="https://a.b/rows.jsonl")
    with pytest.raises(ValueError, match=r"^task.path is empty. Name the file or folder of the data.$"):
        Given(path=" ")


@pytest.mark.parametrize("preset", ["none", "sudoku"])
def test_a_file_is_no_folder_of_splits(row: Callable, write: Callable, preset: str) -> None:
    with pytest.raises(
        ValueError, match=r"rows.jsonl is a file, and task=hub reads a folder of train_sft.* Set task=jsonl"
    ):
        assert Hub(path=write([row(1)]), preset=preset).table


def test_a_data_set_without_our_splits_is_named_with_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", lambda path: {"train": None, "validation": None})
    with pytest.raises(ValueError, match=r"has none of the splits train_sft, train_rl, test \(it has train, validation\). Rename them, or"):
        assert Given(path=str(tmp_path), format="hub").table


def test_a_split_without_rows_is_not_said_to_be_repeated(row: Callable, write: Callable) -> None:
    task = Given(path=write([row(number) | {"split": "test"} for number in range(2)]))
    with pytest.raises(ValueError, match=r"rows.jsonl has no rows of split train_sft, and --num=3 asks for some. It has 0 train_sft, "):
        require_rows(task, "train_sft", 3, "--num")
    with pytest.raises(ValueError, match=r"has 2 rows of split test, and --num=3 would repeat some. Ask for at most 2."):
        require_rows(task, "test", 3, "--num")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"boundary": "(["}, r"task.boundary must be a regular expression, got '\(\['"),
        ({"ground_truth": "(?P<answer>.)"}, "task.ground_truth is for task=hub"),
        ({"ground_truth": "(.)", "format": "hub"}, "task.ground_truth must name a group percept or answer"),
        ({"max_pixels": 0}, "task.max_pixels must be at least 1, got 0"),
        ({"on_error": "ignore"}, "task.on_error must be one of raise, skip, got 'ignore'"),
    ],
)
def test_a_wrong_option_is_refused_before_the_file_is_opened(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Given(path="/nowhere.jsonl", **options)


# Grades and skills


def graded(task: Given, at: SampleKey, percept: str, answer: str) -> Any:
    sample, tags = task.sample(at), Grammar()
    response = tags.read(f"{tags.perception(percept)} so {tags.open_answer}{answer}{tags.close_answer}".encode())
    completion = Completion(ids=(), logprobs=None, finished=True)
    return metrics.grade(task, sample.truth, Rollout(prompt=sample.prompt, completion=completion, response=response, labels=()))


def test_one_percept_may_have_many_answers_each_for_its_own_question(row: Callable, write: Callable) -> None:
    rows = [row(number, perception="a red cube", answer=answer) for number, answer in enumerate(["red", "cube"])]
    task = Given(path=write(rows))
    keys = [key(index, split) for split, items in task.table.items.items() for index in range(len(items))]
    for at in keys:
        own = task.sample(at).solution
        verdict = graded(task, at, " a red  cube\n", f" {own}\n")
        assert (verdict.perception, verdict.perception_graded, verdict.outcome, verdict.faithful) == (True, 1.0, True, True)
        assert not graded(task, at, "a red cube", "cube" if own == "red" else "red").outcome
    # 1 of 10 characters is wrong.
    wrong = graded(task, keys[0], "a red tube", task.sample(keys[0]).solution)
    assert (wrong.perception, wrong.perception_graded, wrong.outcome, wrong.faithful) == (False, pytest.approx(0.9), True, None)


@pytest.mark.parametrize("skill", SKILLS)
def test_what_collected_data_cannot_do_is_refused_in_one_sentence(row: Callable, write: Callable, skill: str) -> None:
    task = Given(path=write([row(1)]))
    assert skill in task.lacks
    assert skill not in Sudoku().lacks
    arguments = {"draw": ("red", key(0)), "solve": ("red",), "valid": ("red",), "verify": ("red", "1")}[skill]
    with pytest.raises(ConfigError, match=rf"were collected, not made: nobody can {SKILLS[skill].replace('*', '.')}"):
        getattr(task, skill)(*arguments)


def test_rewards_that_ask_for_more_are_not_measured_and_refused_when_chosen() -> None:
    task = Given(path="rows.jsonl")
    _, measured = registry.measured_rewards(Consensus(), task)
    assert set(measured) == {"oracle", "consensus", "confidence", "image_dependence", "augmentation"}
    assert set(registry.measured_rewards(Consensus(), Sudoku())[1]) == set(registry.packaged_rewards())
    with pytest.raises(
        ValueError, match=r"reward=rerender needs a task that can draw a percept; collected data cannot. Choose among oracle"
    ):
        registry.measured_rewards(Rerender(), task)
    with pytest.raises(ValueError, match=r"Set reward.only_valid=false, or choose among oracle"):
        registry.measured_rewards(BlindfoldSelf(), task)
    assert "blindfold_self" in registry.measured_rewards(BlindfoldSelf(only_valid=False), task)[1]


# Text similarity


def table_of_distances(one: str, other: str) -> int:
    """Levenshtein distance by the textbook recurrence."""
    above = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        line = [i]
        for j, b in enumerate(other, 1):
            line.append(min(above[j] + 1, line[j - 1] + 1, above[j - 1] + (a != b)))
        above = line
    return above[-1]


@given(one=st.text(alphabet="ab\n ", max_size=40), other=st.text(alphabet="abc ", max_size=40))
def test_similarity_is_one_minus_the_levenshtein_distance_over_the_longer_length(one: str, other: str) -> None:
    assert similarity(one, other) == 1 - table_of_distances(one, other) / max(len(one), len(other), 1)
    assert 0 <= similarity(one, other) <= 1
    assert (similarity(one, other) == 1) == (one == other)


@given(text=st.text())
def test_tidying_twice_changes_nothing_and_never_a_word(text: str) -> None:
    assert tidy(tidy(text)) == tidy(text)
    assert tidy(text).split() == text.split()
    assert same_words(text, f" {text}\n")
