"""curves.png shows each line that the run has, and its labels never collide."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from percasym.report.accuracy_figures import learning_curves
from percasym.report.curves import curve_of, curves, spread
from percasym.report.load import load_run, load_runs
from percasym.report.page_figures import page_panels
from percasym.report.study import study_of
from percasym.report.style import INK, PERCEPTION, REASONING, SAMPLED_ACCURACIES, WEIGHT
from percasym.runs.rundir import RunDirectory
from tests.unit.report.conftest import STEPS, summary


def colours(path: Path) -> set[str]:
    with Image.open(path) as picture:
        counted = picture.convert("RGB").getcolors(maxcolors=1 << 20)
    return {f"#{red:02X}{green:02X}{blue:02X}" for count, (red, green, blue) in counted if count > 200}


def test_every_line_is_drawn_at_a_width_of_at_least_900_pixels(run_dir: Path) -> None:
    path = curves(run_dir)
    assert path == run_dir / "curves.png"
    assert {INK, PERCEPTION, REASONING, WEIGHT} <= colours(path)
    with Image.open(path) as picture:
        assert picture.width >= 900


def test_a_run_that_was_only_evaluated_still_has_its_picture(tmp_path: Path) -> None:
    run = RunDirectory.open(tmp_path, {})
    run.log(0, {"eval/perception": 0.25, "eval/perception/lo": 0.2, "eval/perception/hi": 0.3, "loss/reasoning": float("nan")})
    drawn = colours(curves(tmp_path))
    assert PERCEPTION in drawn
    assert WEIGHT not in drawn


def test_a_curve_joins_only_points_on_one_number_of_samples(run_dir: Path) -> None:
    key = "eval/end_to_end"
    unknown = curve_of(load_run(run_dir), key)
    assert not unknown and len(unknown.others) == 6, "written without counts, as earlier revisions did"
    assert unknown.about == "n not recorded"
    for step in (0, 60, 120, 180):
        add(run_dir, {"step": step, "eval/num_samples": 32})
    add(run_dir, {"step": STEPS, "eval/num_samples": 128})
    curve = curve_of(load_run(run_dir), key)
    assert [*curve.values] == [0, 60, 120, 180]
    assert (curve.num_samples, curve.about) == (32, "n = 32 test samples")
    assert [*curve.others] == [240, STEPS], "without a count, and with another one"
    assert curves(run_dir).exists()


def test_the_samples_of_an_older_run_are_counted_in_its_files(run_dir: Path) -> None:
    for step, number in ((0, 200), (60, 24), (120, 24)):
        (run_dir / "samples").mkdir(exist_ok=True)
        (run_dir / "samples" / f"test_{step:06d}.jsonl").write_text("{}\n" * number)
    curve = curve_of(load_run(run_dir), "eval/perception")
    assert [*curve.values] == [60, 120]
    assert curve.num_samples == 24
    assert 0 in curve.others, "measured on all samples"


def test_sampled_answers_have_curves_of_their_own_on_their_own_number_of_prompts(tmp_path: Path) -> None:
    path = tmp_path / "s" / "sudoku-qwen3vl-rl-none" / "seed0"
    run = RunDirectory.open(path, {"seed": 0, "evaluation": {"num_sampled": 16}, "paradigm": {"steps": 4}})
    for step, value in ((0, 0.25), (2, 0.5), (4, 0.75)):
        greedy = {"eval/num_samples": 512 if step else 128, "eval/end_to_end": value}
        run.log(step, greedy | {f"eval/sampled_{name}": value / 2 for name in ("end_to_end", "perception", "reasoning")})
    run.finish(summary(0.75))
    curve = curve_of(load_run(path), "eval/sampled_end_to_end")
    assert (curve.values, curve.num_samples) == ({0: 0.125, 2: 0.25, 4: 0.375}, 16)
    groups = study_of(load_runs(tmp_path / "s"), "s").groups
    panels = page_panels("sampled", groups)
    assert len(panels) == 3
    assert [point["y"] for point in panels[0]["series"][0]["points"]] == [12.5, 25, 37.5]
    assert learning_curves(groups, SAMPLED_ACCURACIES) is not None
    greedy_only = RunDirectory.open(tmp_path / "g" / "sudoku-qwen3vl-rl-none" / "seed0", {"seed": 0, "paradigm": {"steps": 4}})
    for step in (0, 4):
        greedy_only.log(step, {"eval/num_samples": 8, "eval/end_to_end": 0.5})
    greedy_only.finish(summary(0.5))
    assert learning_curves(study_of(load_runs(tmp_path / "g"), "g").groups, SAMPLED_ACCURACIES) is None


def add(run_dir: Path, values: dict) -> None:
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(values) + "\n")


def test_a_run_without_numbers_is_refused(tmp_path: Path) -> None:
    RunDirectory.open(tmp_path, {})
    with pytest.raises(ValueError, match="has no metrics yet"):
        curves(tmp_path)


@given(st.lists(st.floats(-0.5, 1.5), max_size=6))
def test_labels_keep_their_distance_order_and_bounds(heights: list[float]) -> None:
    placed = spread(heights, gap=0.1, low=0.0, high=1.0)
    ordered = sorted(placed)
    assert all(above - below >= 0.1 - 1e-9 for below, above in pairwise(ordered))
    assert all(-1e-9 <= place <= 1 + 1e-9 for place in placed)
    assert all(placed[i] < placed[j] for i in range(len(heights)) for j in range(len(heights)) if heights[i] < heights[j])
