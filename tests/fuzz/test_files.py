"""Files of others, and of runs that something befell: read as they promise, or refused by a ValueError; never a crash."""

from __future__ import annotations

import gzip
import json
import math
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from percasym.config.schema import ConfigError
from percasym.diagnosis.rollout_file import read_rollouts, record_group
from percasym.report.comparison_table import show
from percasym.report.load import load_run
from percasym.report.publish import publish
from percasym.report.status import status
from percasym.report.study import study_of
from percasym.report.tables import runs_markdown
from percasym.runs.records import line, read_lines
from percasym.runs.study import read_study
from percasym.tasks.given.files import json_lines, read_rows
from percasym.tasks.given.item import from_columns, from_hub
from percasym.tasks.given.messages import columns_of
from percasym.tasks.given.picture import Limits, read_image
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import SampleKey
from tests.fuzz.conftest import altered, cases, damaged
from tests.unit.diagnosis.conftest import synthetic

SAMPLE = Sudoku().sample(SampleKey(task="sudoku", split="test", seed=0, index=0))
ROWS = [
    {"image": "a.png", "query": "Solve.", "perception": "12", "reasoning": " so ", "answer": "2"},
    {"image": "aGk=", "query": "Solve.", "response": "<perception>12</perception> so <answer>2</answer>", "answer": "2"},
    {
        "image": {"bytes": None, "path": "a.png"},
        "query": "?",
        "ground_truth": "<perception>1</perception><answer>2</answer>",
        "response": "",
    },
]
WHOLE = ("\n".join(map(json.dumps, ROWS)) + "\n").encode()
GROUPS = [json.loads(line(record_group(group))) for group in synthetic(num_groups=2, group_size=2)]
ESTIMATE = {"mean": 0.5, "ci95": [0.4, 0.6], "n": 20}
RUN = {
    "config.yaml": {"seed": 0, "study": "s", "paradigm": {"steps": 4}, "task": {"size": 4}},
    "meta.json": {"id": "x", "status": "running", "seconds": 3.5, "reason": ""},
    "metrics.jsonl": [
        {"step": 1, "lr": 0.1, "time/step_seconds": 0.5},
        {"step": 2, "eval/end_to_end": None, "not_finite": ["eval/end_to_end"]},
    ],
    "summary.json": {
        "status": "done",
        "before": {"end_to_end": ESTIMATE},
        "after": {},
        "gain": {},
        "share": {"tokens": 0.1},
        "seconds": {},
    },
}
STUDY = {"cells": {"a/seed0": {"words": ["seed=0"], "reason": None}, "a/seed1": {"words": ["seed=1"], "reason": "it failed."}}}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@cases()
@given(data=damaged([WHOLE]) | st.binary(max_size=60), max_bytes=st.sampled_from([8, 100, 2**20]))
@example(data=b"[" * 100_000, max_bytes=2**20)
@example(data=b'{"a": ' + b"9" * 5_000 + b"}", max_bytes=2**20)
def test_rows_of_others_are_read_or_refused(folder: Path, data: bytes, max_bytes: int) -> None:
    file = folder / "rows.jsonl"
    file.write_bytes(data)
    rows = list(json_lines(file, max_bytes=max_bytes))
    assert len(rows) <= data.count(b"\n") + 1
    assert all(row.raw is None or len(row.raw) <= max_bytes + 1 for row in rows), "no more than the limit is held"
    for row in rows:
        for read in (lambda record: from_columns(record, folder, None), lambda record: from_hub(record, folder, None, None)):
            try:
                item = read(row.record)
            except ValueError:
                continue
            assert item.percept.strip() and item.answer.strip() and item.query.strip()


ARRAY = json.dumps([*ROWS, {"messages": [{"role": "user", "content": "<image>?"}]}], indent=1).encode()


@cases()
@given(data=damaged([ARRAY, gzip.compress(ARRAY), WHOLE]) | st.binary(max_size=60), max_bytes=st.sampled_from([8, 100, 2**20]))
@example(data=b"[" * 100_000, max_bytes=2**20)
@example(data=b"[1", max_bytes=2**20)
@example(data=b"[\xff]", max_bytes=2**20)
def test_files_of_any_kind_are_read_or_refused_with_their_name(folder: Path, data: bytes, max_bytes: int) -> None:
    file = folder / "any"
    file.write_bytes(data)
    try:
        rows = list(read_rows(file, max_bytes=max_bytes))
    except ValueError as error:
        named = str(file) in str(error)
        assert named, "the sentence says where"
        return
    assert all(row.where.startswith(f"{file}, ") for row in rows)


CHAT = [
    {"messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}, {"role": "assistant", "content": "!"}]},
    {"conversations": [{"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "!"}], "images": ["a.png"], "system": "x"},
]


@cases()
@given(altered(CHAT))
def test_chat_rows_of_any_form_are_one_turn_or_refused(record: dict) -> None:
    try:
        columns = columns_of(record)
    except ValueError:
        return
    if "messages" in record or "conversations" in record:
        assert isinstance(columns["query"], str) and isinstance(columns["response"], str)


@cases()
@given(altered(ROWS))
@example({"image": "a.png", "query": "?", "ground_truth": "1", "response": 1})
def test_columns_of_any_kind_are_read_or_refused(folder: Path, record: dict) -> None:
    for read in (lambda: from_columns(record, folder, None), lambda: from_hub(record, folder, None, None)):
        try:
            item = read()
        except ValueError:
            continue
        assert all(isinstance(text, str) for text in item.texts)


@cases()
@given(damaged([SAMPLE.prompt.image or b""]) | st.binary(max_size=40))
def test_a_picture_is_decoded_whole_or_refused(data: bytes) -> None:
    try:
        seen = read_image(data, Limits(max_pixels=2**16, max_decoded_pixels=2**16, max_bytes=2**16))
    except ValueError:
        return
    assert seen.startswith(b"\x89PNG")


@cases()
@given(damaged([("\n".join(map(json.dumps, GROUPS)) + "\n").encode()]) | st.binary(max_size=60))
@example(b"[" * 100_000 + b"\n")
@example(b'{"step": ' + b"9" * 5_000 + b"}\n")
@example(b"\xff\n")
def test_lines_of_a_run_are_read_or_refused(folder: Path, data: bytes) -> None:
    file = folder / "lines.jsonl"
    file.write_bytes(data)
    try:
        assert len(read_lines(file)) == data[: data.rfind(b"\n") + 1].decode().count("\n")
        read_rollouts(file)
    except ValueError as error:
        named = str(file) in str(error)
        assert named, "the sentence says where"


@cases(cost=2)
@given(altered(GROUPS))
def test_rollouts_are_what_was_written_or_refused(folder: Path, record: dict) -> None:
    file = folder / "rollouts.jsonl"
    file.write_text(json.dumps(record) + "\n", encoding="utf-8")
    try:
        groups = read_rollouts(file)
    except ValueError:
        return
    again = json.loads(line(record_group(groups[0])))
    assert again.keys() <= record.keys(), "nothing is made up"
    assert [len(row["ids"]) for row in again["rollouts"]] == [len(row["ids"]) for row in record["rollouts"]], "nothing is dropped"


def write_run(run: Path, parts: dict) -> None:
    run.mkdir(exist_ok=True)
    (run / "config.yaml").write_text(yaml.safe_dump(parts.get("config.yaml")), encoding="utf-8")
    for name in ("meta.json", "summary.json"):
        (run / name).write_text(json.dumps(parts.get(name)), encoding="utf-8")
    metrics = parts.get("metrics.jsonl")
    (run / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in (metrics if isinstance(metrics, list) else [metrics])))


@cases(cost=20)
@given(altered([RUN, {**RUN, "meta.json": {"id": "x", "status": "done", "seconds": 1}}]))
@example({**RUN, "meta.json": {"id": "x", "status": "done", "seconds": 10**400}})
@example({**RUN, "meta.json": {"id": "x", "status": "done", "seconds": math.inf}})
@example({**RUN, "meta.json": {"id": "x", "status": "done", "seconds": None}})
@example(
    {**RUN, "config.yaml": {**RUN["config.yaml"], "paradigm": {"steps": 2**53}}, "metrics.jsonl": [{"step": 1, "time/step_seconds": 1e280}]}
)
@example({**RUN, "config.yaml": {**RUN["config.yaml"], "paradigm": {"steps": 10**400}}})
@example({**RUN, "metrics.jsonl": [{"step": step, "time/step_seconds": 1e308} for step in (1, 2)]})
@example({**RUN, "metrics.jsonl": [{"step": 10**400, "lr": 0.1}]})
@example({**RUN, "metrics.jsonl": [{"step": "one", "lr": 0.1}, {"step": 2, "lr": 0.1}]})
def test_a_run_is_shown_or_refused(folder: Path, parts: dict) -> None:
    run = folder / "seed0"
    write_run(run, parts)
    try:
        record = load_run(run)
    except ConfigError as error:
        said = str(error)
        assert said.startswith(str(run)) and "\n" not in said
        return
    Console(quiet=True).print(status([record], (), time.time()))
    assert runs_markdown([record])
    assert publish([record], folder / "report").page.exists()
    show(study_of([record], "x"), Console(quiet=True))


@cases()
@given(altered([STUDY]))
def test_a_study_is_read_or_refused(folder: Path, study: dict) -> None:
    (folder / "study.json").write_text(json.dumps(study), encoding="utf-8")
    try:
        planned = read_study(folder)
    except ConfigError:
        return
    assert all(isinstance(cell.name, str) and all(isinstance(word, str) for word in cell.words) for cell in planned)


def test_what_the_targets_damage_was_good(folder: Path) -> None:
    """Else a target would pass that refused everything."""
    (folder / "good.jsonl").write_bytes(WHOLE)
    assert [row.record["query"] for row in json_lines(folder / "good.jsonl", max_bytes=2**20)] == ["Solve.", "Solve.", "?"]
    (folder / "groups.jsonl").write_text("".join(json.dumps(group) + "\n" for group in GROUPS))
    assert len(read_rollouts(folder / "groups.jsonl")) == 2
    write_run(folder / "seed1", RUN)
    assert load_run(folder / "seed1").summary is not None
    (folder / "study.json").write_text(json.dumps(STUDY))
    assert len(read_study(folder)) == 2
