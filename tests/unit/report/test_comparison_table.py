"""`percasym compare`: a table that fits, in a terminal and in a pipe, and one sentence for what cannot be compared."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from percasym.cli.main import main
from percasym.report.comparison_table import show
from percasym.report.load import last_evaluation, load_runs
from percasym.report.study import study_of

ALL_WRONG = [(False, False, False)] * 8
REASONING_RIGHT = [(True, False, True)] * 4 + [(False, False, False)] * 4
PERCEPTION_RIGHT = [(False, True, False)] * 8
Cells = Callable[..., Path]


def printed(study: Path, width: int, *, terminal: bool = False) -> str:
    out = io.StringIO()
    assert show(study_of(load_runs(study), "x"), Console(file=out, width=width, force_terminal=terminal, highlight=False))
    return out.getvalue()


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


@pytest.fixture
def two(cell_run: Cells, tmp_path: Path) -> Path:
    """`none` has right reasoning and no right percept, `ngdiff` the reverse."""
    cell_run(tmp_path / "two", "none", 0, 0.5, grades=(ALL_WRONG, REASONING_RIGHT))
    cell_run(tmp_path / "two", "ngdiff", 0, 0.7, grades=(ALL_WRONG, PERCEPTION_RIGHT))
    return tmp_path / "two"


def test_two_cells_stand_beside_each_other_in_a_hundred_columns(two: Path) -> None:
    text = printed(two, 100)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    rows = words(text)
    assert rows[1] == ["What", "did", "post-training", "do", "to", "perception", "and", "to", "reasoning?"]
    assert ["sudoku", "qwen3vl", "sft:", "accuracy"] in [row[:4] for row in rows]
    assert ["before", "after", "gain", "after", "gain", "none", "verdict"] in rows
    place = rows.index(["a", "10.0", "50.0", "+40.0", "70.0", "+60.0", "-50.0", "against", "the"])
    below = ["[5,", "15]", "[22,", "78]", "[+35.0,", "+45.0]", "[65,", "75]", "[+55.0,", "+65.0]", "[-76.1,", "-3.9]", "prediction"]
    assert rows[place + 1] == below, "intervals stand below their numbers"
    assert ["asymmetry", "+50.0", "-100.0"] in rows
    assert "ngdiff: costs 50.0 points of a_r against none (95 % interval [-76.1, -3.9], n = 8): clear of 0." in text


def test_a_narrower_terminal_gets_a_row_for_each_cell(two: Path) -> None:
    text = printed(two, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert ["ngdiff", "10.0", "70.0", "+60.0", "+100.0", "clear", "of", "0"] in words(text)


@pytest.mark.parametrize("width", [100, 120])
def test_more_than_three_cells_have_a_row_for_each_metric(cell_run: Cells, tmp_path: Path, width: int) -> None:
    for balance, grades in (("none", REASONING_RIGHT), ("0.1", PERCEPTION_RIGHT), ("0.3", PERCEPTION_RIGHT), ("ngdiff", PERCEPTION_RIGHT)):
        cell_run(tmp_path / "s", balance, 0, 0.5, grades=(ALL_WRONG, grades))
    text = printed(tmp_path / "s", width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    rows = words(text)
    cells = ("none", "0.1", "0.3", "ngdiff")
    metrics = ("a", "via a_p", "via a_r", "via both", "other", "a_p", "a_r", "asymmetry")
    shown = [row[0] if row[0] in cells else " ".join(row) for row in rows if row and (row[0] in cells or " ".join(row) in metrics)]
    assert shown == [name for metric in metrics for name in (metric, *cells)]
    found = next(row for row in rows if row[:1] == ["ngdiff"])
    assert found[:12] == ["ngdiff", "10.0", "[5,", "15]", "50.0", "[45,", "55]", "+40.0", "[+35.0,", "+45.0]", "-50.0", "[-76.1,"]
    assert "n = 8):" not in text, "each row has its verdict; no sentence repeats it"


def test_one_cell_shows_its_gains_and_its_asymmetry(cell_run: Cells, tmp_path: Path) -> None:
    cell_run(tmp_path / "s", "ngdiff", 0, 0.7, grades=(ALL_WRONG, PERCEPTION_RIGHT))
    text = printed(tmp_path / "s", 100)
    assert ["before", "after", "gain"] in words(text)
    assert "No cell has balance=none, so there are no differences to it." in " ".join(text.split())
    assert "ngdiff: a_r gained 100.0 points less than a_p" in text


def test_cells_that_start_from_other_models_never_share_a_column_before(two: Path) -> None:
    summary = two / "sudoku-qwen3vl-sft-ngdiff" / "seed0" / "summary.json"
    text = summary.read_text()
    assert '"mean": 0.1,' in text
    summary.write_text(text.replace('"mean": 0.1,', '"mean": 0.2,'))
    rows = [row[:2] for row in words(printed(two, 200))]
    assert ["none", "10.0"] in rows and ["ngdiff", "20.0"] in rows


def test_only_a_terminal_without_no_color_has_colours(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[32m" in printed(two, 100, terminal=True), "else this test could not fail"
    assert "\x1b" not in printed(two, 100)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[32m" not in printed(two, 100, terminal=True)


def test_a_pipe_gets_plain_text_of_a_hundred_columns_and_no_torch(two: Path) -> None:
    work = f"import sys; from percasym.cli.main import main; code = main(['compare', {str(two)!r}]); print(code, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", work], capture_output=True, text=True, check=True, env={"PATH": "", "TERM": "xterm"})
    assert "\x1b" not in done.stdout
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert 80 < max(map(len, lines)) <= 100
    assert lines[-1] == "0 False"


def test_a_run_that_is_named_twice_counts_once(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(two), str(two / "sudoku-qwen3vl-sft-none" / "seed0")]) == 0
    assert "seeds in a cell: 1;" in capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *paths: Path) -> str:
    assert main(["compare", *map(str, paths)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1, "one line"
    return output.err


def test_what_cannot_be_compared_is_one_sentence(
    two: Path, cell_run: Cells, make_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "are the same cell and seed" in refused(capsys, two, cell_run(tmp_path / "other", "none", 0, 0.5))
    unfinished = make_run("half/cell/seed0", finished=False)
    assert "(1 of 1 run not finished). `percasym status` says where they stand." in refused(capsys, unfinished)
    file = last_evaluation(two / "sudoku-qwen3vl-sft-none" / "seed0")
    assert file is not None
    file.write_text("{}\n")
    assert refused(capsys, two).startswith("The runs could not be compared: Line 1 of ")


def test_a_report_ends_with_the_comparison_a_figure_and_the_page(two: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(two)]) == 0
    *above, figure, page = capsys.readouterr().out.splitlines()
    assert figure == f"Figure: {two / 'report' / 'learning.png'}"
    assert page == f"Page: {two / 'report' / 'report.html'}"
    assert above[-1] == "ngdiff: costs 50.0 points of a_r against none (95 % interval [-76.1, -3.9], n = 8): clear of 0."


def test_a_report_of_two_studies_says_why_it_compares_nothing(
    two: Path, cell_run: Cells, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = cell_run(tmp_path / "other", "none", 0, 0.5).parents[1]
    assert main(["report", str(two), str(other), "--out", str(tmp_path / "out")]) == 0
    assert "are the same cell and seed. Name the runs of one study.\n" in capsys.readouterr().out


def test_a_cell_on_other_samples_than_the_baseline_is_named(cell_run: Cells, tmp_path: Path) -> None:
    cell_run(tmp_path / "s", "none", 0, 0.5, grades=(ALL_WRONG, REASONING_RIGHT))
    cell_run(tmp_path / "s", "ngdiff", 0, 0.7, grades=(ALL_WRONG, PERCEPTION_RIGHT))
    assert "Without one" not in printed(tmp_path / "s", 200)
    cell_run(tmp_path / "s", "0.3", 0, 0.7, grades=(ALL_WRONG, PERCEPTION_RIGHT), puzzles=[f"another {i}" for i in range(8)])
    text = " ".join(printed(tmp_path / "s", 200).split())
    assert "Without one: 0.3; no seed was evaluated on the samples of none at that seed." in text
