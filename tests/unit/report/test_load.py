"""Run directories are read back as they were written; missing files are named."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from percasym.config.schema import ConfigError
from percasym.report.load import load_run, load_runs, read_grades, read_summary
from percasym.types import Estimate


def test_a_run_comes_back_as_it_was_written(run_dir: Path) -> None:
    run = load_run(run_dir)
    assert run.cell == "sudoku-qwen3vl-sft-ngdiff"
    assert run.config["seed"] == 0
    assert run.meta["status"] == "done"
    assert run.summary is not None
    assert run.summary.after["end_to_end"].mean == 0.382
    assert math.isnan(run.summary.share["gradient"]), "null in summary.json is nan, not zero"


def test_evaluation_and_training_of_one_step_are_one_record(run_dir: Path) -> None:
    run = load_run(run_dir)
    assert {"eval/perception", "eval/perception/lo", "loss/perception"} <= set(run.metrics[60])
    assert run.series("eval/reasoning").steps == [0, 60, 120, 180, 240, 300]
    assert len(run.series("loss/total").steps) == 0
    assert not run.series("loss/total")


def test_a_number_that_was_not_finite_is_nan_in_its_series(run_dir: Path) -> None:
    series = load_run(run_dir).series("grad/cosine")
    assert series.values[0] == 0.1
    assert math.isnan(series.values[1])


def test_a_summary_in_memory_reads_like_one_from_disk(run_dir: Path) -> None:
    raw = json.loads((run_dir / "summary.json").read_text())
    whole = read_summary(raw)
    again = read_summary({"before": whole.before, "after": whole.after})
    assert again.after == whole.after
    assert isinstance(again.before["perception"], Estimate)
    assert again.gain == {}


def test_all_runs_of_a_study_are_found_in_order(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("study/b/seed0", "study/a/seed1", "study/a/seed0"):
        make_run(name, finished=False)
    assert [run.path.relative_to(tmp_path).as_posix() for run in load_runs(tmp_path)] == ["study/a/seed0", "study/a/seed1", "study/b/seed0"]


def test_a_folder_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is not a run directory: it has no config\.yaml"):
        load_run(tmp_path)
    with pytest.raises(FileNotFoundError, match="No run directory at or below"):
        load_runs(tmp_path)


@pytest.mark.parametrize(
    ("grades", "puzzle"), [('{"perception": "yes"}', '"p"'), ('{"perception": true}', "3"), ("[1]", '"p"'), ('"all"', '"p"')]
)
def test_a_line_that_is_no_test_record_is_named(tmp_path: Path, grades: str, puzzle: str) -> None:
    good = '{"key": {"task": "t", "split": "test", "seed": 0, "index": 1}, "grades": {"perception": null}, "truth": "p"}\n'
    (tmp_path / "test.jsonl").write_text(good + good.replace('{"perception": null}', grades).replace('"p"', puzzle))
    with pytest.raises(ValueError, match=r"Line 2 of .*test\.jsonl is no test record, for it has no key, p\* or grades: "):
        read_grades(tmp_path / "test.jsonl")
    (tmp_path / "test.jsonl").write_text(good)
    assert read_grades(tmp_path / "test.jsonl")["t", "test", 0, 1].grades == {"perception": None}


def test_numbers_that_count_or_measure_nothing_are_refused(run_dir: Path) -> None:
    raw = json.loads((run_dir / "summary.json").read_text())
    for part, value, reason in (
        ("share", {"gradient": 1e290}, "1e+290 was not measured"),
        ("num_puzzles", 10**30, "a number of 31 digits counts nothing"),
        ("num_puzzles", "many", "'str' object cannot be interpreted as an integer"),
    ):
        (run_dir / "summary.json").write_text(json.dumps(raw | {part: value}))
        with pytest.raises(ConfigError, match=r"summary\.json is not as a run writes it \(") as refusal:
            load_run(run_dir)
        assert f"({reason})" in str(refusal.value)
