"""Files of a run are strict JSON, and whole."""

import errno
import json
import os
import re
from pathlib import Path

import pytest

from percasym.runs.records import TEST, line, list_samples, option_name, read_lines, write_lines, write_whole
from percasym.types import Fault, Span


def test_names_of_spans_and_faults_are_plain_values() -> None:
    record = {"labels": (Span.perception, Span.reasoning), "fault": Fault.no_answer}
    assert json.loads(line(record)) == {"labels": [0, 1], "fault": "no answer is stated"}


@pytest.mark.parametrize("file", sorted((Path(__file__).resolve().parents[3] / "conf").glob("*/*.yaml")), ids=lambda file: file.stem)
def test_the_option_of_a_class_is_the_name_of_its_yaml(file: Path) -> None:
    if target := re.search(r"^_target_: (\S+)$", file.read_text(), re.MULTILINE):
        assert option_name({file.parent.name: {"_target_": target[1]}}, file.parent.name) == file.stem


def test_samples_are_listed_by_step_and_strange_files_are_none(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    for name in ("test_1000000.jsonl", "test_999999.jsonl", "rollouts_000005.jsonl", "my_notes.jsonl", "test_5.json"):
        (tmp_path / "samples" / name).touch()
    assert [(file.step, file.split) for file in list_samples(tmp_path)] == [(5, "rollouts"), (999999, "test"), (1000000, "test")]
    assert [file.path.name for file in list_samples(tmp_path, TEST)] == ["test_999999.jsonl", "test_1000000.jsonl"]


def test_lines_come_back_as_they_went(tmp_path: Path) -> None:
    records = [{"text": 'a "quoted"\nline with \u2028 and \x85'}, {"n": 3}]  # Separators of str.splitlines, not of JSON lines.
    write_lines(tmp_path / "x.jsonl", records)
    assert read_lines(tmp_path / "x.jsonl") == records


def test_only_the_last_line_may_be_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"a": ')
    assert read_lines(path) == [{"a": 1}]
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(ValueError, match="Line 2 of"):
        read_lines(path)


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "x.json", "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "x.json", "new")
    assert (tmp_path / "x.json").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["x.json"]


def test_half_a_character_is_written_escaped(tmp_path: Path) -> None:
    write_whole(tmp_path / "x.json", '"\ud800"')
    assert (tmp_path / "x.json").read_text() == '"\\ud800"'


@pytest.mark.parametrize("value", [b"bytes", {1: "a"}, {1, 2}, object()])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        line(value)


def test_a_line_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(b'{"a": "\xff"}\n')
    with pytest.raises(ValueError, match=r"x\.jsonl is not text \('utf-8' codec can't decode byte 0xff"):
        read_lines(tmp_path / "x.jsonl")
