"""Cells of seeds: averages, intervals and pairs; the status of runs; the marks of a percept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from percasym.cli.main import main
from percasym.report.cards import category, marks
from percasym.report.header import header
from percasym.report.load import last_evaluation, load_run, load_runs, read_grades
from percasym.report.page_figures import page_panels
from percasym.report.status import planned_state, run_state
from percasym.report.study import CellGroup, average, study_of
from percasym.report.words import percent, points
from percasym.runs.rundir import RunDirectory
from percasym.runs.study import Planned
from percasym.statistics import gain, proportion

TRUTH = "1034\n0021\n3400\n0002"
EACH_KIND = ((True, True), (False, True), (True, False), (False, False), (False, None))


def group_of(study: Path) -> CellGroup:
    (group,) = study_of(load_runs(study), "x").groups
    return group


def half_right(first: int, n: int = 8) -> list[tuple[bool, bool, bool]]:
    """Grades of which the first are right."""
    return [(index < first,) * 3 for index in range(n)]


def test_an_interval_of_several_seeds_is_over_puzzles_and_seeds(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    for seed, right in ((0, 6), (1, 2)):
        cell_run(tmp_path / "s", "none", seed, right / 8, grades=(half_right(0), half_right(right)))
    (cell,) = group_of(tmp_path).cells
    found = cell.estimate("perception")
    values = [index < right for right in (6, 2) for index in range(8)]
    assert found == proportion(values, [*range(8)] * 2, [0] * 8 + [1] * 8)
    assert (found.mean, found.n) == (0.5, 8)
    one = proportion(values[:8])
    assert found.ci95[1] - found.ci95[0] > one.ci95[1] - one.ci95[0], "seeds that differ by 50 points say so"


def test_one_model_before_training_counts_once_whatever_the_seeds(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        path = cell_run(tmp_path / "s", "none", seed, 0.5, grades=(half_right(3), half_right(4)))
        (path / "summary.json").write_text((path / "summary.json").read_text().replace('"mean": 0.1,', '"mean": 0.375,'))
    (cell,) = group_of(tmp_path).cells
    assert cell.estimate("perception", "before") == proportion([True] * 3 + [False] * 5)


def test_the_tables_of_a_run_a_cell_and_a_pair_have_one_interval(
    cell_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # 0 of 4 before and 3 of 4 after; the difference of ngdiff to none, 4 of 4 minus 3 of 4.
    study = tmp_path / "s"
    for balance, right in (("none", 3), ("ngdiff", 4)):
        path = cell_run(study, balance, 0, right / 4, grades=(half_right(0, 4), half_right(right, 4)))
        text = (path / "summary.json").read_text().replace('"mean": 0.1,', '"mean": 0.0,')
        (path / "summary.json").write_text(text.replace(f'"mean": {right / 4 - 0.1},', f'"mean": {right / 4},'))
    assert main(["report", str(study)]) == 0
    terminal = " ".join(capsys.readouterr().out.split())
    assert main(["compare", str(study)]) == 0
    compared = " ".join(capsys.readouterr().out.split())
    page = (study / "report" / "report.html").read_text().replace("\u00a0", " ").replace('<span class="wide">', "")
    rows = [row.split(",") for row in (study / "report" / "cells.csv").read_text().splitlines()]
    cells = {(row[1], row[4]): dict(zip(rows[0], row, strict=True)) for row in rows[1:]}
    csv = cells["sudoku-qwen3vl-sft-ngdiff", "perception"]
    difference = gain([True] * 3 + [False], [True] * 4)
    assert [float(csv[name]) for name in ("difference", "difference_low", "difference_high")] == pytest.approx(
        [difference.mean, *difference.ci95], abs=1e-5
    )
    assert float(csv["before_high"]) == pytest.approx(0.48989, abs=1e-4), "not [0, 0]"
    shown = points(difference)
    assert shown in page and shown in (study / "report" / "report.md").read_text()
    low_high = shown.split(" ", 1)[1]
    assert low_high in compared and low_high in terminal
    after, gained = percent(proportion([True] * 3 + [False])), points(gain([False] * 4, [True] * 3 + [False]))
    for text in (terminal, page):
        assert after in text and gained in text and "0.0 [0, 49]" in text


def test_samples_that_are_not_those_of_the_summary_are_not_mixed_with_it(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    cell_run(tmp_path / "s", "none", 0, 0.9, grades=(half_right(0), half_right(4)))
    (cell,) = group_of(tmp_path).cells
    assert cell.estimate("perception").mean == 0.9
    assert cell.estimate("perception").ci95 == pytest.approx((0.85, 0.95)), "the interval that the run recorded"


def test_cells_are_the_baseline_then_constant_weights_then_moving_ones(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    for balance in ("ngdiff", "0.7", "0.3", "none"):
        cell_run(tmp_path / "s", balance, 0, 0.5)
    group = group_of(tmp_path)
    assert [cell.label for cell in group.cells] == ["none", "0.3", "0.7", "ngdiff"]
    assert [cell.moves for cell in group.cells] == [False, False, False, True]
    assert group.cells[-1].weights == pytest.approx((0.45, 0.3, 0.6)), "0.3, 0.4, 0.5, 0.6"
    assert group.title == "sudoku qwen3vl sft"


def test_a_lone_cell_is_named_without_task_model_and_paradigm(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    path = cell_run(tmp_path / "s", "none", 0, 0.5).parent
    path.rename(path.with_name(f"{path.name}-smoke"))
    assert [cell.label for cell in group_of(tmp_path).cells] == ["none-smoke"]


def test_a_difference_is_paired_by_seed_and_by_sample(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    cell_run(tmp_path / "s", "none", 0, 0.5, verdicts=[(True, True), (False, True), (False, True), (False, True)])
    cell_run(tmp_path / "s", "0.5", 0, 0.5, verdicts=[(True, True), (True, True), (True, True), (False, True)])
    cell_run(tmp_path / "s", "0.5", 1, 0.5, verdicts=[(False, True)] * 4)  # The baseline has no seed 1: unpaired.
    group = group_of(tmp_path)
    baseline, other = group.differences("perception")
    assert math.isnan(baseline.mean)
    assert other.mean == 0.5, "two of four samples turned right in seed 0"
    assert other.n == 4


def test_samples_of_one_puzzle_widen_the_interval_of_a_difference(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    before, after = [(False, True)] * 8, [(True, True)] * 4 + [(False, True)] * 4

    def width(study: str, num_puzzles: int) -> float:
        for balance, verdicts in (("none", before), ("0.5", after)):
            file = last_evaluation(cell_run(tmp_path / study / "s", balance, 0, 0.5, verdicts=verdicts))
            assert file is not None
            text = file.read_text()
            for index in range(8):
                text = text.replace(f'"puzzle": "puzzle {index}"', f'"puzzle": "{index * num_puzzles // 8}"')
            file.write_text(text)
        low, high = group_of(tmp_path / study).differences("perception")[1].ci95
        return high - low

    assert width("two", 2) > 1.5 * width("eight", 8), "four samples of a puzzle that all turn right count once"


def test_records_of_earlier_revisions_are_known_by_their_percept(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    file = last_evaluation(cell_run(tmp_path / "s", "none", 0, 0.5))
    assert file is not None
    file.write_text("".join(line.replace('"puzzle"', '"was"') for line in file.read_text().splitlines(keepends=True)))
    assert {one.puzzle for one in read_grades(file).values()} == {"1034\n0021\n3400\n0002"}


def test_other_samples_are_never_paired(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    cell_run(tmp_path / "s", "none", 0, 0.5)
    cell_run(tmp_path / "s", "0.5", 0, 0.5, verdicts=EACH_KIND[:3])
    assert math.isnan(group_of(tmp_path).differences("perception")[1].mean)


def test_grades_are_found_whatever_the_texts_contain(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    path = cell_run(tmp_path / "s", "none", 0, 0.5, reasoning='"grades": {"perception": 7}')
    file = last_evaluation(path)
    assert file is not None
    assert [one.grades["perception"] for one in read_grades(file).values()] == [True, False, True, False, False]


def test_a_line_that_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"Line 1 of .* is no test record"):
        read_grades(tmp_path / "x.jsonl")


def test_the_category_of_a_response_is_perception_reasoning_or_both() -> None:
    named = [category({"perception": perception, "faithful": faithful}) for perception, faithful in EACH_KIND]
    assert named == ["neither", "perception", "reasoning", "both", "unknown"]


def test_only_texts_of_the_same_form_are_marked() -> None:
    assert marks("sudoku", TRUTH, TRUTH + "\n1") is None
    assert marks("sudoku", TRUTH, None) is None
    assert marks("maze", TRUTH, TRUTH) is None
    assert marks("graph_coloring", "3: AB", "three: AB") is None


def test_the_status_of_a_running_run_has_the_time_left_or_its_silence(tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path / "cell" / "seed0", {"seed": 0, "paradigm": {"steps": 100}})
    for step in range(1, 41):
        run.log(step, {"time/step_seconds": 9.0 if step <= 20 else 2.0})  # Only the last 20 steps count.
    written = (run.path / "metrics.jsonl").stat().st_mtime
    record = load_run(run.path)
    assert run_state(record, written + 1).text == "running, step 40/100, 2 min 00 s of training left", "60 steps of 2 s"
    assert run_state(record, written + 7200) == type(run_state(record, 0))(state="silent", text="step 40/100, silent for 2 h 00 min")
    run.failed("out of memory on rank 3")
    assert run_state(load_run(run.path), written).text == "failed at step 40/100: out of memory on rank 3"


def test_a_cell_that_never_began_is_in_the_status_with_its_reason() -> None:
    failed, waiting = (planned_state(Planned(name="none/seed0", words=(), reason=reason)) for reason in ("no room on the disk.", None))
    assert (failed.state, failed.text) == ("failed", "failed before it began: no room on the disk.")
    assert (waiting.state, waiting.text) == ("not begun", "not begun")


def test_nothing_is_averaged_to_nothing_and_of_few_cells_nothing_is_drawn(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    assert math.isnan(average([]).mean) and average([]).n == 0
    path = cell_run(tmp_path / "s", "none", 0, 0.5, steps=1)
    assert [page_panels(name, [group_of(tmp_path)]) for name in ("frontier", "weight", "credit")] == [[], [], []]
    assert page_panels("gap", [group_of(tmp_path)])[0]["categories"] == [{"cell": 0, "text": "none"}]
    (path / "summary.json").write_text('{"after": {}}')
    assert page_panels("gap", [group_of(tmp_path)]) == []


def test_a_date_that_is_none_is_left_out_of_the_head(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    path = cell_run(tmp_path / "s", "none", 0, 0.5)
    assert "finished" in dict(header(study_of(load_runs(tmp_path), "s"), ()).facts)
    meta = json.loads((path / "meta.json").read_text())
    (path / "meta.json").write_text(json.dumps(meta | {"started": "yesterday"}))
    head = header(study_of(load_runs(tmp_path), "s"), ())
    assert "finished" not in dict(head.facts) and head.prediction == ""
