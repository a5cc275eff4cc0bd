"""Data as practitioners have it, after public reports: read right, or refused with its line."""

from __future__ import annotations

import base64
import gzip
import io
import json
import sys
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from percasym.config.resolve import composed
from percasym.data.checks import with_checked_rows
from percasym.tasks.base import data_summary
from percasym.tasks.given.files import json_lines, line_at, read_rows
from percasym.tasks.given.picture import Limits, image_source, is_encoded, look, read_image
from percasym.tasks.given.task import Given
from percasym.types import Sample, SampleKey
from tests.fuzz.conftest import limited

CONF = Path(__file__).resolve().parents[3] / "conf"
TAGGED = "<perception>red 1</perception> I count. <answer>1</answer>"


def every_sample(task: Given) -> list[Sample]:
    """Of all splits."""
    keys = [SampleKey(task="given", split=s, seed=0, index=i) for s, items in task.table.items.items() for i in range(len(items))]
    return [task.sample(key) for key in keys]


def only(task: Given) -> Sample:
    (sample,) = every_sample(task)
    return sample


def checked(path: str, **options: Any) -> Given:
    """The task as a run with the packaged tiny model has it."""
    words = ["task=jsonl", f"task.path={path}", *(f"task.{name}={value}" for name, value in options.items())]
    task = with_checked_rows(composed(words, CONF)).task
    assert isinstance(task, Given)
    return task


# Files (LLaMA-Factory 6135, 5883)

TURN = {"query": "<image>What is in picture 1?", "response": TAGGED}
CHATS: dict[str, dict[str, Any]] = {
    "LLaMA-Factory": {
        "messages": [{"role": "user", "content": TURN["query"]}, {"role": "assistant", "content": TAGGED}],
        "images": ["pictures/1.png"],
    },
    "LLaVA": {
        "conversations": [{"from": "human", "value": "<image>\nWhat is in picture 1?"}, {"from": "gpt", "value": TAGGED}],
        "image": "pictures/1.png",
    },
    "LLaVA, the picture at the end": {
        "conversations": [{"from": "human", "value": "What is in picture 1?\n<image>"}, {"from": "gpt", "value": TAGGED}],
        "image": "pictures/1.png",
    },
    "OpenAI, a path": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": "pictures/1.png"}},
                    {"type": "text", "text": "What is in picture 1?"},
                ],
            },
            {"role": "assistant", "content": [{"type": "text", "text": TAGGED}]},
        ]
    },
    "transformers": {
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is in picture 1?"}]},
            {"role": "assistant", "content": TAGGED},
        ],
        "images": [{"bytes": None, "path": "pictures/1.png"}],
    },
    "OpenAI, the picture at the end": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "What is in picture 1?"}, {"type": "image", "image": "pictures/1.png"}]},
            {"role": "assistant", "content": TAGGED},
        ]
    },
    "ms-swift": {"query": "<image>What is in picture 1?", "response": TAGGED, "history": [], "images": ["pictures/1.png"]},
}


@pytest.mark.parametrize("kind", CHATS)
def test_a_chat_row_is_the_sample_of_its_columns(row: Callable, write: Callable, kind: str) -> None:
    wanted = only(Given(path=write([row(1)], "columns.jsonl")))
    task = Given(path=write([CHATS[kind]]))
    assert only(task) == wanted
    placed = "1 question had a placeholder <image>, or a picture after the text: the picture now stands before the question."
    assert task.about()["notes"] == [placed] * (kind not in ("OpenAI, a path", "transformers")), (
        "of those, the picture stands there already"
    )


def write_kind(kind: str, rows: list[dict[str, Any]], folder: Path) -> Path:
    lines, array = "\n".join(map(json.dumps, rows)) + "\n", json.dumps(rows, indent=2)
    path = folder / "rows"
    if kind == "parquet":
        parquet, table = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow").Table.from_pylist(rows)
        parquet.write_table(table, path)
        return path
    data = {
        "JSON lines": lines.encode(),
        "JSON array": array.encode(),
        "JSON array on one line": json.dumps(rows).encode(),
        "gzipped JSON lines": gzip.compress(lines.encode()),
        "gzipped JSON array": gzip.compress(array.encode()),
        "with a byte order mark": lines.encode("utf-8-sig"),
        "an array with a byte order mark": array.encode("utf-8-sig"),
        "with CRLF": lines.replace("\n", "\r\n").encode(),
        "an array with CRLF": array.replace("\n", "\r\n").encode(),
    }[kind]
    path.write_bytes(data)
    return path


KINDS = (
    "JSON lines", "JSON array", "JSON array on one line", "gzipped JSON lines", "gzipped JSON array", "with a byte order mark",
    "an array with a byte order mark", "with CRLF", "an array with CRLF", "parquet",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_same_in_every_kind_of_file(row: Callable, write: Callable, tmp_path: Path, kind: str) -> None:
    rows = [row(number) for number in range(12)]
    wanted = Given(path=write(rows, "wanted.jsonl"))
    task = Given(path=str(write_kind(kind, rows, tmp_path)))
    assert every_sample(task) == every_sample(wanted)
    assert task.about()["fingerprint"] == wanted.about()["fingerprint"]


def test_an_array_longer_than_a_chunk_is_read_element_by_element(row: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("percasym.tasks.given.files.CHUNK", 7)
    task = Given(path=str(write_kind("JSON array", [row(number) for number in range(3)], tmp_path)))
    assert len(every_sample(task)) == 3


def test_rows_of_an_array_are_named_by_their_line(row: Callable, tmp_path: Path) -> None:
    path = write_kind("JSON array", [row(1), row(2) | {"answer": ""}], tmp_path)
    # "[", then seven lines of each object: the second begins on line 9.
    with pytest.raises(ValueError, match=r"rows, line 9: its answer is empty. Correct the row"):
        assert Given(path=str(path)).table


FILES: dict[str, tuple[bytes, str]] = {
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "is UTF-16. Save it as UTF-8, as in: iconv -f UTF-16 -t UTF-8."),
    "UTF-16 without a mark": ('{"a": 1}'.encode("utf-16-le"), "is UTF-16. Save it as UTF-8"),
    "an object over several lines": (b'{\n  "data": []\n}', "is one JSON object over several lines. Write an array of rows, or one ob"),
    "a broken array": (b'[{"a": 1}, {"a": }]', "line 1: the element that begins here is not JSON ("),
    "an array without commas": (b'[{"a": 1}\n{"a": 2}]', "rows.jsonl, line 2: a comma or ] must follow an element of the array."),
    "half an archive": (gzip.compress(b"{}" * 1000)[:20], "is no whole gzip file ("),
    "no Parquet": (b"PAR1 and then nothing", "cannot be read as Parquet ("),
    "an empty array": (b"[]", "rows.jsonl has no rows."),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, kind: str) -> None:
    data, message = FILES[kind]
    if "Parquet" in kind:
        pytest.importorskip("pyarrow")
    (tmp_path / "rows.jsonl").write_bytes(data)
    path = tmp_path / "rows.jsonl"
    with pytest.raises(ValueError, match="rows") as refusal:
        assert list(read_rows(path, max_bytes=2**20)) or Given(path=str(path)).table
    assert message in str(refusal.value)


def turns(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": TAGGED} for role in roles], "images": ["pictures/2.png"]}


CHAT_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "both kinds of chat": (CHATS["LLaVA"] | CHATS["LLaMA-Factory"], "it has both messages and conversations. Leave one out."),
    "a response beside the messages": (
        CHATS["LLaMA-Factory"] | {"response": "Blue."},
        "its response is 'Blue.', and its messages say '<perception>red 1</perception>",
    ),
    "two turns": (turns("user", "assistant", "user", "assistant"), "its messages have 2 responses, and one turn (a question and its respo"),
    "no response": (turns("user"), "its messages must be a question and its response, got the roles user."),
    "a tool": (turns("user", "tool", "assistant"), "its messages have the role 'tool'; the roles are user, human, assistant,"),
    "two pictures": (CHATS["LLaMA-Factory"] | {"images": ["a.png", "b.png"]}, "it has 2 pictures, and one picture is trained"),
    "a history": ({"query": "?", "response": TAGGED, "history": [["a", "b"]], "image": "a.png"}, "it has a history, and one turn"),
    "a video": (CHATS["LLaMA-Factory"] | {"videos": ["a.mp4"]}, "it has videos, and only pictures are trained."),
    "messages that are text": ({"messages": "hello", "images": ["a.png"]}, "its messages must be a list of messages, got 'hello'."),
    "a sound among the parts": (
        {"messages": [{"role": "user", "content": [{"type": "audio"}]}]},
        "a message of its messages has a part of type 'audio'; the parts are text, image and image_url.",
    ),
}


@pytest.mark.parametrize("what", CHAT_FAULTS)
def test_what_is_no_single_turn_about_one_picture_is_refused(row: Callable, write: Callable, what: str) -> None:
    bad, message = CHAT_FAULTS[what]
    row(2)
    with pytest.raises(ValueError, match=r"rows.jsonl, line 2: ") as refusal:
        assert Given(path=write([row(1), bad])).table
    assert message in str(refusal.value)


def test_a_system_message_is_put_before_the_question_and_that_is_said(row: Callable, write: Callable) -> None:
    row(1)
    chat = CHATS["LLaMA-Factory"]
    system = {"role": "system", "content": "Be brief."}
    task = Given(path=write([chat | {"messages": [system, *chat["messages"]]}]))
    assert only(task).prompt.question == "Be brief.\nWhat is in picture 1?"
    assert "1 row had a system message, which was put before the question." in task.about()["notes"]
    with pytest.raises(ValueError, match=r"must be a question and its response, got the roles user, assistant, system"):
        assert Given(path=write([chat | {"messages": [*chat["messages"], system]}], "late.jsonl")).table


# Placeholders (Qwen-VL-Series-Finetune 181, LLaMA-Factory 8734)

TAGS: dict[str, tuple[dict[str, str], str]] = {
    "two": ({"query": "<image><image>How many?"}, "its query has 2 placeholders <image>, and one picture is trained"),
    "in the middle": ({"query": "In <image> how many?"}, "its query has <image> in the middle"),
    "in the reasoning": ({"reasoning": "In <image> I count."}, "its reasoning holds the placeholder <image>, which would be trained"),
    "a video": ({"query": "<video>How many?"}, "its query holds the placeholder <video>"),
}


@pytest.mark.parametrize("where", TAGS)
def test_a_placeholder_that_has_no_place_is_refused(row: Callable, write: Callable, where: str) -> None:
    columns, message = TAGS[where]
    with pytest.raises(ValueError, match="line 1") as refusal:
        assert Given(path=write([row(1) | columns])).table
    assert message in str(refusal.value)


# Control tokens (EasyR1 110, Qwen-VL-Series-Finetune 128), aspect ratios (133), surrogates (tiktoken 82)


@pytest.mark.parametrize("column", ["query", "perception", "reasoning", "answer"])
@pytest.mark.parametrize("token", ["<|image_pad|>", "<|im_end|>", "<|im_start|>"])
def test_a_control_token_of_the_model_is_refused_in_every_column(row: Callable, write: Callable, column: str, token: str) -> None:
    path = write([row(number) for number in range(5)] + [row(5) | {column: f"a {token} b"}])
    with pytest.raises(ValueError, match=r"rows.jsonl, line 6: ") as refusal:
        assert checked(path).table
    assert f"its {column} holds {token}, a control token of the model" in str(refusal.value)
    assert checked(path, on_error="skip").about()["skipped"] == 1
    assert len(every_sample(Given(path=path))) == 6, "the rule belongs to the model, not to the rows"


def test_a_picture_that_the_processor_would_refuse_is_a_row_error(row: Callable, write: Callable, tmp_path: Path) -> None:
    rows = [row(number) for number in range(6)]
    Image.new("RGB", (908, 4)).save(tmp_path / "thin.png")  # 227 to 1; the processor of Qwen takes 200 to 1.
    path = write([*rows[:5], rows[5] | {"image": "thin.png"}])
    with pytest.raises(ValueError, match=r"line 6: its image has 908 x 4 pixels, and the model takes sides of at most 200 to 1. Correct"):
        assert checked(path).table
    task = checked(path, on_error="skip")
    assert sum(task.about()["rows"].values()) == 5
    assert "line 6: its image has 908 x 4 pixels" in data_summary(task.about())


def test_a_row_longer_than_the_models_positions_is_a_row_error(row: Callable, write: Callable) -> None:
    rows = [row(1), row(2) | {"reasoning": "word " * 5000}]
    with pytest.raises(ValueError, match=r"line 2: it has [\d,]+ tokens \([\d,]+ of them its image\), and the model has 4,096 positions."):
        assert checked(write(rows)).table
    rows[1]["reasoning"] = "1 " * 1800  # Above a third of the limit in bytes, and below it in tokens.
    assert len(every_sample(checked(write(rows, "b.jsonl")))) == 2


@pytest.mark.parametrize("column", ["query", "perception", "reasoning", "answer"])
def test_half_of_a_surrogate_pair_is_a_row_error(row: Callable, write: Callable, column: str) -> None:
    path = write([row(1), json.dumps(row(2) | {column: "ab \ud83d"})])
    with pytest.raises(ValueError, match=rf"line 2: its {column} holds half of a surrogate pair, '\\ud83d' at character 4"):
        assert Given(path=path).table
    assert Given(path=path, on_error="skip").about()["skipped"] == 1


# Nulls and numbers (datasets 7222)


def test_null_columns_are_absent_and_a_number_is_an_answer(row: Callable, write: Callable) -> None:
    absent = {"perception": None, "reasoning": None, "answer": None}
    rows = [row(1) | {"response": None, "answer": 1}, {**row(1), **absent, "response": TAGGED}, row(1) | {"answer": 1.0, "split": None}]
    samples = every_sample(Given(path=write(rows)))
    assert [sample.solution for sample in samples] == ["1", "1", "1"]
    assert len({sample.demonstration for sample in samples}) == 1


# Boundaries


CHAINS: dict[str, tuple[str, str, tuple[str, str]]] = {
    "plain": ("3 red\nReasoning: 3 is 3.", r"\nReasoning:", ("3 red", " 3 is 3.")),
    "paren": ("3 red\n(Reasoning) 3 is 3.", r"\n\(Reasoning\) ", ("3 red", "3 is 3.")),
    "R1": (
        "<think>3 red. 3 is 3.</think><answer>3</answer>",
        r"<think>(?P<percept>[^.]*)\. (?P<reasoning>.*)</think>",
        ("3 red", "3 is 3."),
    ),
    "LLaVA-CoT": (
        "<SUMMARY> I count. </SUMMARY>\n\n<CAPTION> 3 red </CAPTION>\n\n<REASONING> 3 is 3. </REASONING>\n\n<CONCLUSION> 3 </CONCLUSION>",
        r"(?s)<CAPTION>(?P<percept>.*)</CAPTION>\s*<REASONING>(?P<reasoning>.*)</REASONING>\s*<CONCLUSION>(?P<answer>.*)</CONCLUSION>",
        ("3 red", " 3 is 3. "),
    ),
}


@pytest.mark.parametrize("maker", CHAINS)
def test_chains_of_thought_are_cut_as_their_makers_write_them(row: Callable, write: Callable, maker: str) -> None:
    response, boundary, (percept, reasoning) = CHAINS[maker]
    columns = {name: value for name, value in row(1).items() if name in ("image", "query")}
    task = checked(write([columns | {"response": response, "answer": 3}]), boundary=boundary)
    sample = only(task)
    assert (sample.truth, sample.solution.strip()) == (percept, "3")
    assert sample.demonstration.reasoning.startswith(f"{reasoning}<answer>")


def test_a_boundary_names_both_groups_or_none() -> None:
    with pytest.raises(ValueError, match="A boundary with groups must name both percept and reasoning"):
        Given(path="rows.jsonl", boundary="(?P<percept>.*)")


def test_an_answer_that_the_cut_response_contradicts_is_a_row_error(row: Callable, write: Callable) -> None:
    columns = {name: value for name, value in row(1).items() if name in ("image", "query")}
    path = write([columns | {"response": CHAINS["R1"][0], "answer": "4"}])
    with pytest.raises(ValueError, match="line 1: its answer is '4', and its response says '3'"):
        assert Given(path=path, boundary=CHAINS["R1"][1]).table


# Splits


def test_no_picture_is_in_two_splits_whatever_is_asked_about_it(row: Callable, write: Callable) -> None:
    table = Given(path=write([row(number) | {"query": f"Question {q}?"} for number in range(12) for q in range(10)])).table
    pictures = [{item.picture_digest for item in items} for items in table.items.values()]
    assert sum(map(len, pictures)) == len(set().union(*pictures)) == 12
    assert table.notes == []


def test_a_split_column_is_kept_and_its_leak_is_said_with_numbers(row: Callable, write: Callable) -> None:
    rows = [row(number) | {"split": "train"} for number in range(9)]
    rows += [row(number) | {"split": "test", "query": "Another?"} for number in (0, 1)] + [row(20) | {"split": "test"}]
    task = Given(path=write(rows))
    assert task.about()["rows"] == {"train_sft": 9, "train_rl": 0, "test": 3}
    assert task.about()["notes"] == ["Warning: 2 of 3 test pictures are trained on, too. Gains on them are no measure of seeing."]
    again = Given(path=write([*rows, row(0) | {"split": "test"}], "b.jsonl"))
    assert "Warning: 2 of 3 test pictures are trained on, too, 1 of them with the same question." in data_summary(again.about())


def test_validation_rows_are_the_test_split_where_there_is_no_other(row: Callable, write: Callable) -> None:
    rows = [row(1) | {"split": "train"}, row(2) | {"split": "val"}]
    alone, beside = Given(path=write(rows, "a.jsonl")), Given(path=write([*rows, row(3) | {"split": "test"}], "b.jsonl"))
    assert (alone.about()["rows"]["test"], beside.about()["rows"]["test"]) == (1, 1)
    assert alone.about()["notes"] == ["1 validation row taken as the test split."]
    assert beside.about()["notes"] == ["1 validation row left out, because there are test rows."]


def test_a_split_is_known_and_named_by_every_row_or_none(row: Callable, write: Callable) -> None:
    with pytest.raises(ValueError, match=r"line 1: its split must be one of train_sft, train_rl, test, train, .*, got 'holdout'"):
        assert Given(path=write([row(1) | {"split": "holdout"}])).table
    with pytest.raises(ValueError, match=r"line 2: it has no split, and the rows before have a split."):
        assert Given(path=write([row(1) | {"split": "train"}, row(2)], "b.jsonl")).table


def test_shards_of_parquet_name_their_split(row: Callable, tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for name, numbers in {"train-00000-of-00002": (1, 2), "train-00001-of-00002": (3,), "test-00000-of-00001": (4,)}.items():
        parquet.write_table(pyarrow.Table.from_pylist([row(number) for number in numbers]), tmp_path / f"{name}.parquet")
    assert Given(path=str(tmp_path)).about()["rows"] == {"train_sft": 3, "train_rl": 0, "test": 1}


# Files that expand


def test_rows_that_a_dictionary_expands_to_gigabytes_are_too_long(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    repeats = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), pa.array(["x" * 2**25]))
    parquet.write_table(pa.table({"query": repeats}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 2**13
    with limited():  # 64 rows of 32 MiB are 2 GiB, and 256 MiB are allowed here.
        rows = list(islice(read_rows(path, max_bytes=2**20), 3))
    assert [(row.where, row.raw) for row in rows] == [(f"{path}, row {number}", None) for number in (1, 2, 3)]


@pytest.mark.parametrize("kind", ["a list", "a text"])
def test_a_row_that_expands_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    indices = pa.array([0]).take(pa.array([0] * 2**23)).cast(pa.int32()) if kind == "a list" else pa.array([0] * 16, pa.int32())
    repeats = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * (20 if kind == "a list" else 2**25)]))
    column = pa.ListArray.from_arrays([0, 2**23], repeats) if kind == "a list" else repeats
    parquet.write_table(pa.table({"query": column}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 2**13
    monkeypatch.setattr("percasym.tasks.given.parquet.MEMORY_BYTES", 2**27)
    with limited(), pytest.raises(ValueError, match=rf"^{path} cannot be read as Parquet: after row 0, decoding takes more than 134,217"):
        list(read_rows(path, max_bytes=2**24))


@pytest.mark.parametrize("kind", ["gzipped lines", "a gzipped array", "gzipped blanks", "parquet"])
def test_a_small_file_of_a_great_many_rows_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("percasym.tasks.given.files.EXPANDED_BYTES", 2**20)
    monkeypatch.setattr("percasym.tasks.given.files.CHUNK", 2**12)
    path = write_kind("parquet", [{"query": "x" * 100}] * 50_000, tmp_path) if kind == "parquet" else tmp_path / "rows"
    if kind != "parquet":
        line = b'{"query": "' + b"x" * 100 + b'"}'
        plain = {"gzipped lines": (line + b"\n") * 50_000, "a gzipped array": b"[" + line + (b"," + line) * 50_000 + b"]"}
        path.write_bytes(gzip.compress(plain.get(kind, line + b"\n" * 2**23)))
    with pytest.raises(ValueError, match=rf"^{path} has [\d,]+ bytes and expands to [\d,]+ or more, over 200 times as many. If its rows"):
        list(islice(read_rows(path, max_bytes=1000), 30_000))


def test_a_file_of_few_rows_may_be_compressed_as_well_as_it_can(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(gzip.compress(b'{"query": "x"}\n' * 50_000))
    assert sum(1 for _ in read_rows(path, max_bytes=1000)) == 50_000


def test_values_of_any_type_are_plain_ones(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    record = {"a": [{"b": b"1", "c": 1.5}], "d": date(2024, 1, 2), "e": Decimal("1.50"), "f": None, "g": True, "h": 2**60}
    parquet.write_table(pa.Table.from_pylist([record]), tmp_path / "rows.parquet")
    (row,) = read_rows(tmp_path / "rows.parquet", max_bytes=1000)
    assert row.raw == record | {"d": "2024-01-02", "e": "1.50"}


# Names of pictures


def test_every_usual_way_to_name_a_picture_gives_the_same_picture(row: Callable, write: Callable, tmp_path: Path) -> None:
    columns = row(3)
    data = (tmp_path / "pictures" / "3.png").read_bytes()
    (tmp_path / "pictures" / "bare").write_bytes(data)
    broken = base64.encodebytes(data).decode()
    ways: dict[str, Any] = {
        "relative": "pictures/3.png", "Windows": "pictures\\3.png", "file URI": (tmp_path / "pictures" / "3.png").as_uri(),
        "list of one": ["pictures/3.png"], "no extension": "pictures/bare", "base64 with breaks": broken, "a mapping": {"bytes": broken},
        "a data URI with breaks": f"data:image/png;base64,{broken}", "a mapping with a path": {"bytes": None, "path": "pictures/3.png"},
    }  # fmt: skip
    for number, (way, value) in enumerate(ways.items()):
        assert only(Given(path=write([columns | {"image": value}], f"{number}.jsonl"))).prompt.image == data, way
    del columns["image"]
    assert only(Given(path=write([columns | {"images": ["pictures/3.png"]}], "images.jsonl"))).prompt.image == data


# Pictures as a person sees them


def corner(width: int = 4, height: int = 2) -> Image.Image:
    """White, with a red pixel at the top left."""
    image = Image.new("RGB", (width, height), "white")
    image.putpixel((0, 0), (255, 0, 0))
    return image


def saved(image: Image.Image, encoding: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, encoding, **options)
    return out.getvalue()


def seen(data: bytes, row: Callable, write: Callable, tmp_path: Path, **options: Any) -> Image.Image:
    (tmp_path / "a").write_bytes(data)
    sample = only(Given(path=write([row(1) | {"image": "a"}]), **options))
    return Image.open(io.BytesIO(sample.prompt.image)).convert("RGB")


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_a_jpeg_of_a_phone_is_upright(row: Callable, write: Callable, tmp_path: Path, orientation: int) -> None:
    # JPEG smears single pixels, so a corner of 32 x 32 is marked: a 128 x 64 picture, as stored, with red at its top left.
    stored = Image.new("RGB", (128, 64), "white")
    stored.paste((255, 0, 0), (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = seen(saved(stored, "JPEG", quality=95, exif=exif), row, write, tmp_path)
    # 3 is half a turn; 6 a quarter clockwise, which brings the top left to the top right of 64 x 128; 8 a quarter counter-clockwise.
    size, centre = {1: ((128, 64), (16, 16)), 3: ((128, 64), (112, 48)), 6: ((64, 128), (48, 16)), 8: ((64, 128), (16, 112))}[orientation]
    assert image.size == size
    for x in (16, size[0] - 16):
        for y in (16, size[1] - 16):
            red, green, blue = image.getpixel((x, y))
            assert red > 240 and (max(green, blue) < 15) == ((x, y) == centre), (x, y)


@pytest.mark.parametrize(("orientation", "where"), [(1, (0, 0)), (3, (3, 1)), (6, (1, 0)), (8, (0, 3))])
@pytest.mark.parametrize("encoding", ["PNG", "WEBP"])
def test_a_phone_picture_is_upright(row: Callable, write: Callable, tmp_path: Path, orientation: int, where: tuple, encoding: str) -> None:
    # 6 is a quarter turn clockwise: the top left pixel of 4 x 2 stands at the top right of 2 x 4. 8 is counter-clockwise, 3 half a turn.
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if encoding == "WEBP" else {}
    image = seen(saved(corner(), encoding, exif=exif, **options), row, write, tmp_path)
    assert image.size == ((2, 4) if orientation in (6, 8) else (4, 2))
    assert image.getpixel(where) == (255, 0, 0)


def test_transparency_stands_on_white(row: Callable, write: Callable, tmp_path: Path) -> None:
    half = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    half.putpixel((1, 0), (0, 0, 0, 128))  # Half black on white: 255 - 128 = 127.
    assert [seen(saved(half), row, write, tmp_path).getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (127, 127, 127)]
    palette = Image.new("P", (1, 1), 0)
    palette.putpalette([10, 20, 30])
    assert seen(saved(palette, transparency=0), row, write, tmp_path).getpixel((0, 0)) == (255, 255, 255)
    assert seen(saved(palette), row, write, tmp_path).getpixel((0, 0)) == (10, 20, 30)


def test_sixteen_bits_are_scaled_to_eight(row: Callable, write: Callable, tmp_path: Path) -> None:
    deep = Image.new("I;16", (2, 1))
    deep.putpixel((0, 0), 65535)
    deep.putpixel((1, 0), 257 * 100)
    image = seen(saved(deep), row, write, tmp_path)
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255,) * 3, (100,) * 3]


def test_cmyk_is_converted_and_animation_shows_its_first_frame(row: Callable, write: Callable, tmp_path: Path) -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    values = seen(saved(red, "JPEG", quality=95), row, write, tmp_path).getpixel((8, 8))
    assert values[0] > 245 and max(values[1:]) < 10
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for encoding in ("GIF", "PNG", "WEBP"):
        data = saved(frames[0], encoding, save_all=True, append_images=frames[1:])
        values = seen(data, row, write, tmp_path).getpixel((0, 0))
        assert values[0] > 245 and max(values[1:]) < 10, encoding


def test_a_large_picture_is_resized_and_that_is_said(row: Callable, write: Callable, tmp_path: Path) -> None:
    data = saved(Image.new("RGB", (200, 50)))
    assert seen(data, row, write, tmp_path, max_pixels=2500).size == (100, 25)  # A quarter of the area, half of each side.
    task = Given(path=str(tmp_path / "rows.jsonl"), max_pixels=2500)
    assert task.about()["notes"] == ["1 row had a picture that was resized to task.max_pixels."]
    assert seen(saved(Image.new("RGB", (4000, 1))), row, write, tmp_path, max_pixels=1000).size == (1000, 1)
    with pytest.raises(ValueError, match=r"its image has 200 x 50 pixels, and task.max_decoded_pixels=9999"):
        seen(data, row, write, tmp_path, max_pixels=2500, max_decoded_pixels=9999)


def test_the_same_pixels_are_the_same_picture_in_any_file(row: Callable, write: Callable, tmp_path: Path) -> None:
    rows = []
    for name, options in (("a.png", {}), ("b.bmp", {}), ("c.png", {"compress_level": 0})):
        corner().save(tmp_path / name, **options)
        rows.append(row(1) | {"image": name, "query": f"What is in {name}?"})
    assert len({item.picture_digest for items in Given(path=write(rows)).table.items.values() for item in items}) == 1


LIMITS = Limits(max_bytes=2**20, max_pixels=2**20, max_decoded_pixels=2**22)
NO_PICTURES: dict[str, tuple[Any, str]] = {
    "an empty data URI": ("data:image/png;base64,", "its image is empty."),
    "an empty mapping": ({"bytes": b"", "path": ""}, "its image must be a path or base64, got None."),
    "a long text": ("?" * 5000, f"its image is neither a path nor base64 of a picture: {'?' * 40!r}..."),
    "another host": ("file://nas/a.png", "its image file://nas/a.png lies on the host nas. A file:// address of this machine has three"),
    "half of a surrogate pair": ("\ud800.png", "its image is no file name: '\\ud800.png'."),
    "a zero byte": ("a\0.png", "its image is no file name: 'a\\x00.png'."),
    "an escaped zero byte": ("file:///a%00.png", "its image is no file name: '/a\\x00.png'."),
    "a name that no file system takes": ("b" * 300 + ".png", "cannot be read (File name too long)."),
    "such a name with a backslash": ("a\\" + "b" * 300 + ".png", "cannot be read (No such file or directory)."),
    "a letter too many": ("iVBORw0KGgoAA", "its image is not base64 (Invalid base64-encoded string: number of data characters (13)"),
    "base64 with = inside": ("iVBORw0KGgo=xx==", "iVBORw0KGgo=xx== cannot be read (No such file or directory). If it is base64, it is not"),
}


@pytest.mark.parametrize("what", NO_PICTURES)
def test_what_names_no_picture_is_one_sentence(tmp_path: Path, what: str) -> None:
    value, message = NO_PICTURES[what]
    with pytest.raises(ValueError, match="its image") as refusal:
        look(image_source(value, tmp_path), LIMITS)
    assert message in str(refusal.value)


def test_a_picture_of_a_parquet_row_is_its_bytes(tmp_path: Path) -> None:
    data = saved(corner())
    for value in (data, {"bytes": data, "path": "a.png"}, [{"bytes": data, "path": None}]):
        assert image_source(value, tmp_path) == data
    assert [is_encoded([value]) for value in (base64.b64encode(data).decode(), {"bytes": data}, {"url": "a.png"}, 3)] == [
        True, False, False, False,
    ]  # fmt: skip


def test_the_transparent_value_of_sixteen_bits_is_white() -> None:
    deep = Image.new("I;16", (2, 1))
    deep.putpixel((0, 0), 1234)
    deep.putpixel((1, 0), 257 * 100)
    image = Image.open(io.BytesIO(read_image(saved(deep, transparency=1234), LIMITS)))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255,) * 3, (100,) * 3]


def test_damaged_exif_data_turn_nothing() -> None:
    plain, broken = saved(corner()), PngInfo()
    broken.add_text("Raw profile type exif", "\nexif\n       4\nzzzz\n")  # No hexadecimal digits: PIL raises ValueError.
    for data in (saved(corner(), exif=b"Exif\0\0no TIFF"), saved(corner(), pnginfo=broken)):
        assert look(data, LIMITS) == look(plain, LIMITS)


BROKEN_ARRAYS: dict[str, tuple[bytes, str]] = {
    "something behind": (b'[{"a": 1}]\n{"a": 2}', "rows.json, line 2: something follows the end of the array."),
    "nested too deeply": (b"[\n" + b"[" * 200_000, "rows.json, line 2: the element that begins here is nested too deeply."),
    "no UTF-8": (b'[{"a": "\xff"}]', "rows.json is not UTF-8 text ('utf-8' codec can't decode byte 0xff in position 8"),
    "no end": (b"[", "rows.json, line 1: the element that begins here is not JSON ("),
    "too long": (
        b'[{"a": "' + b"x" * 2**17 + b'"}]',
        "line 1: the element that begins here is longer than task.max_bytes, or is not JSON.",
    ),
}


@pytest.mark.parametrize("what", BROKEN_ARRAYS)
def test_an_array_that_cannot_be_read_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    data, message = BROKEN_ARRAYS[what]
    monkeypatch.setattr("percasym.tasks.given.files.CHUNK", 2**10)
    (tmp_path / "rows.json").write_bytes(data)
    with pytest.raises(ValueError, match=r"rows\.json") as refusal:
        list(read_rows(tmp_path / "rows.json", max_bytes=2**16 if what == "too long" else 2**20))
    assert message in str(refusal.value)


def test_a_number_at_the_end_of_a_chunk_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rows.json").write_bytes(b"[12, 34]")
    for chunk in range(1, 9):
        monkeypatch.setattr("percasym.tasks.given.files.CHUNK", chunk)
        assert [row.raw for row in read_rows(tmp_path / "rows.json", max_bytes=2**20)] == [b"12", b"34"]


def test_a_table_is_refused_with_the_way_to_write_rows_unless_it_holds_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("image,answer\na.png,3\n")
    with pytest.raises(ValueError, match=r"rows\.csv is no JSON\. Give .* to_json\(path, orient='records', lines=True\)\."):
        list(read_rows(tmp_path / "rows.csv", max_bytes=2**20))
    (tmp_path / "rows.csv").write_text('{"answer": 3}\n')
    assert len(list(read_rows(tmp_path / "rows.csv", max_bytes=2**20))) == 1


def test_a_path_without_rows_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"is a folder without Parquet files\. Give task\.path a file of JSON lines, a JSON array or"):
        list(read_rows(tmp_path, max_bytes=2**20))
    with pytest.raises(ValueError, match=r"There is no file .*gone\. Give task\.path a file of JSON lines\."):
        list(json_lines(tmp_path / "gone", max_bytes=2**20))
    with pytest.raises(ValueError, match=r"gone cannot be read \(No such file or directory\)\."):
        line_at(tmp_path / "gone", 0, max_bytes=2**20)
    (tmp_path / "rows").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"is a Parquet file, and that needs the package pyarrow: pip install 'percasym\[parquet\]'\."):
        list(read_rows(tmp_path / "rows", max_bytes=2**20))


def test_a_message_that_is_no_object_is_refused(row: Callable, write: Callable) -> None:
    for messages, sentence in (
        (["hello"], "its messages must hold messages with a role and a content, got 'hello'."),
        ([{"role": "user", "content": 3}], "a message of its messages must have text or a list of parts, got 3."),
    ):
        with pytest.raises(ValueError, match="line 1") as refusal:
            assert Given(path=write([{"messages": messages, "images": ["pictures/1.png"]}])).table
        assert sentence in str(refusal.value)


def test_pictures_of_a_chat_stand_in_the_question_and_in_one_place(row: Callable, write: Callable) -> None:
    row(1)
    picture = {"type": "image", "image": "pictures/1.png"}
    asked = {"role": "user", "content": [picture, {"type": "text", "text": "What is in picture 1?"}]}
    said = {"role": "assistant", "content": TAGGED}
    assert only(Given(path=write([{"messages": [asked, said]}], "inside.jsonl"))) == only(Given(path=write([row(1)], "columns.jsonl")))
    for messages, more, sentence in (
        ([asked, said], {"images": ["pictures/1.png"]}, "its pictures stand in messages and in a column of their own."),
        ([asked, {"role": "assistant", "content": [picture]}], {}, "a picture of its messages stands in a message of the role assistant."),
    ):
        with pytest.raises(ValueError, match="line 1") as refusal:
            assert Given(path=write([{"messages": messages, **more}])).table
        assert sentence in str(refusal.value)


def test_pictures_that_are_decoded_are_no_smaller_than_those_that_are_kept() -> None:
    with pytest.raises(
        ValueError, match=r"task\.max_decoded_pixels must be at least task\.max_pixels=4, got 2: pictures are decoded"
    ):
        Given(path="rows.jsonl", max_pixels=4, max_decoded_pixels=2)
