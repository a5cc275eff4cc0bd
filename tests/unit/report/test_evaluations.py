"""Two evaluations of the same samples, paired; other samples are refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from percasym.cli.main import main
from percasym.report.comparison_table import fitting
from percasym.report.evaluations import pair, paired_tables
from percasym.report.load import CONTRIBUTIONS, load_run
from percasym.runs.rundir import RunDirectory
from percasym.types import Estimate

GRADES = ("end_to_end", "perception", "reasoning", "faithful")


def evaluation(
    path: Path, right: list[bool | None], *, puzzles: list[str] | None = None, kind: str = "evaluation", data: str | None = None
) -> Path:
    """An evaluation directory in which sample i has grade `right[i]` in every metric."""
    run = RunDirectory.open(path, {"task": {"size": 4}}, about={"kind": kind, **({"data": {"fingerprint": data}} if data else {})})
    puzzles = puzzles or [f"puzzle {i}" for i in range(len(right))]
    records: list[dict[str, Any]] = [
        {"key": {"task": "sudoku", "split": "test", "seed": 0, "index": i}, "truth": puzzle, "grades": dict.fromkeys(GRADES, grade)}
        for i, (puzzle, grade) in enumerate(zip(puzzles, right, strict=True))
    ]
    run.samples("test", 0, records)
    run.finish({"after": {"end_to_end": Estimate(mean=0.5, ci95=(0.1, 0.9), n=len(right))}})
    return path


def test_a_difference_is_paired_by_sample(tmp_path: Path) -> None:
    # B gains sample 0 and loses none: 1 of 4 changes, so the mean difference is + 1/4 in each metric.
    first, second = evaluation(tmp_path / "a", [False, True, False, True]), evaluation(tmp_path / "b", [True, True, False, True])
    paired = pair(load_run(first), load_run(second))
    assert (paired.num_samples, paired.num_puzzles) == (4, 4)
    # Where the percept became right, p* had not helped before: it took both.
    parts = {"  via a_p": 0.0, "  via a_r": 0.0, "  via both": 0.25, "  other": 0.0}
    assert {one.name: one.difference.mean for one in paired.metrics if one.name in parts} == parts
    measured = [one for one in paired.metrics if one.name not in parts]
    assert [(one.first.mean, one.second.mean, one.difference.mean) for one in measured] == [(0.5, 0.75, 0.25)] * 4
    swapped = pair(load_run(second), load_run(first))
    assert [one.difference.mean for one in swapped.metrics if one.name not in parts] == [-0.25] * 4


def test_a_sample_that_one_side_could_not_measure_is_left_out(tmp_path: Path) -> None:
    first, second = evaluation(tmp_path / "a", [None, True, False]), evaluation(tmp_path / "b", [True, True, True])
    (one, *_) = pair(load_run(first), load_run(second)).metrics
    assert one.difference.n == 2 and one.difference.mean == 0.5


def test_compare_prints_both_and_the_difference(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    places = [str(evaluation(tmp_path / name, right)) for name, right in (("a", [False] * 40), ("b", [True] * 40))]
    assert main(["compare", *places]) == 0
    shown = capsys.readouterr().out
    # Agresti and Min, 40 pairs that all gain: centre 40 / 42, 41 discordant, half width 1.96 sqrt(41 - 42 (40 / 42)^2) / 42 = .080.
    assert "+100.0 [+87.3, +100.0]" in shown and "clear of 0" in shown and "40 samples of 40 puzzles" in shown


def test_other_samples_or_other_puzzles_are_refused_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first = evaluation(tmp_path / "a", [True, False])
    fewer = evaluation(tmp_path / "fewer", [True])
    other = evaluation(tmp_path / "other", [True, False], puzzles=["puzzle 0", "another"])
    for second, sentence in ((fewer, "share 1 of 2 and 1 samples"), (other, "Sample 1 of")):
        assert main(["compare", str(first), str(second)]) == 2
        shown = capsys.readouterr().err
        assert sentence in shown and shown.count("\n") == 1
    assert main(["compare", str(tmp_path)]) == 2
    assert "pairs two evaluations, got 3" in capsys.readouterr().err


def test_evaluations_on_different_rows_are_refused_although_their_pictures_are_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    places = {data: evaluation(tmp_path / name, [True, False], data=data) for name, data in (("a", "aaaa"), ("b", "bbbb"))}
    again = evaluation(tmp_path / "c", [True, True], data="aaaa")
    assert main(["compare", *map(str, places.values())]) == 2
    refused = capsys.readouterr().err
    assert "were run on different data (fingerprints aaaa and bbbb); only runs on the same rows are compared." in refused
    assert refused.count("\n") == 1
    assert main(["compare", str(places["aaaa"]), str(again)]) == 0


def test_report_reads_evaluation_directories(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    places = [str(evaluation(tmp_path / name, [True, False])) for name in ("a", "b")]
    assert main(["report", "--markdown", *places]) == 0
    assert capsys.readouterr().out.splitlines()[2].startswith("| a | 2 | 50.0 [10, 90] |")
    assert main(["report", *places, "--out", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "report.html").is_file()
    assert json.loads((tmp_path / "a" / "meta.json").read_text())["kind"] == "evaluation"


def test_an_evaluation_that_is_not_finished_pairs_with_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first, second = evaluation(tmp_path / "a", [True]), evaluation(tmp_path / "b", [True])
    (second / "summary.json").unlink()
    assert main(["compare", str(first), str(second)]) == 2
    assert capsys.readouterr().err == f"{second} holds no finished evaluation. `percasym status` says how far a run is.\n"
    assert main(["compare", str(first)]) == 2
    assert (
        capsys.readouterr().err == "percasym compare pairs two evaluations, got 1. Name two evaluation directories, the reference first.\n"
    )


def test_a_metric_that_one_side_did_not_measure_is_left_out(tmp_path: Path) -> None:
    first, second = evaluation(tmp_path / "a", [True, False]), evaluation(tmp_path / "b", [True, True])
    file = second / "samples" / "test_000000.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(record | {"grades": record["grades"] | {"faithful": None}}) + "\n" for record in records))
    paired = pair(load_run(first), load_run(second))
    assert len(paired.metrics) == len(GRADES) - 1 + len(CONTRIBUTIONS)
    assert not any(one.name.startswith("faithful") for one in paired.metrics)
    assert all("Faithful" not in str(table.caption) for table in paired_tables(paired))
    assert all("Faithful is over the samples" in str(table.caption) for table in paired_tables(pair(load_run(first), load_run(first))))


@pytest.mark.parametrize("width", [80, 100])
def test_a_narrow_terminal_gets_every_digit(tmp_path: Path, width: int) -> None:
    first, second = evaluation(tmp_path / "a", [False] * 40), evaluation(tmp_path / "b", [True] * 40)
    out = Console(file=io.StringIO(), width=width)
    out.print(fitting(paired_tables(pair(load_run(first), load_run(second))), out))
    assert isinstance(out.file, io.StringIO)
    text = out.file.getvalue()
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    assert "+100.0" in text and "[+87.3, +100.0]" in text and "clear of 0" in text
