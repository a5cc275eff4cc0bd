"""The tables of one run, within 80 columns, and of a study as Markdown."""

import io
import json
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from percasym.report.load import CONTRIBUTIONS, load_run, load_runs
from percasym.report.tables import percent, run_table, runs_markdown
from percasym.types import Estimate


def printed(shown: Table, width: int = 80, colour: str | None = None) -> str:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=colour is not None, color_system=colour).print(shown)
    return out.getvalue()


def test_eighty_columns_hold_every_metric_without_a_cut(run_dir: Path) -> None:
    text = printed(run_table(load_run(run_dir).summary))
    assert all(len(row) <= 80 for row in text.splitlines())
    assert "…" not in text
    row = next(row for row in text.splitlines() if "perception  a_p" in row)
    assert row.split() == ["perception", "a_p", "5.0", "[-2,", "12]", "43.2", "[36,", "50]", "+38.2", "[+31.2,", "+45.2]", "200"]
    for name in ("end to end  a", "perception  graded", "reasoning  a_r", "reasoning  text", "faithful"):
        assert name in text


def test_shares_and_seconds_stand_below(run_dir: Path) -> None:
    text = " ".join(printed(run_table(load_run(run_dir).summary)).split())
    assert "In ordinary training perception is 2.9 % of the tokens, 1.3 % of the loss, ? % of the gradient (first step)." in text
    assert "Seconds: setup 8, train 301, evaluate 96." in text


def test_puzzles_with_several_samples_are_named_below_the_table(run_dir: Path) -> None:
    def shown(num_puzzles: int | None) -> str:
        (run_dir / "summary.json").write_text(json.dumps(json.loads((run_dir / "summary.json").read_text()) | {"num_puzzles": num_puzzles}))
        return " ".join(printed(run_table(load_run(run_dir).summary)).split())

    assert "200 samples of 58 puzzles: the intervals allow for what the samples of one share." in shown(58)
    assert "puzzles" not in shown(200) + shown(None)


def test_a_run_of_rl_says_how_many_groups_taught_and_where_its_seconds_went(run_dir: Path) -> None:
    def shown(**rounds: float) -> str:
        (run_dir / "summary.json").write_text(json.dumps(json.loads((run_dir / "summary.json").read_text()) | {"rounds": rounds}))
        return " ".join(printed(run_table(load_run(run_dir).summary)).split())

    seconds = {"rollout_seconds": 60.0, "reward_seconds": 10.0, "update_seconds": 30.0}
    text = shown(groups=480, taught=120, mismatch_max=1e-9, **seconds)
    assert "120 of 480 groups (25%) taught: their rollouts earned differently." in text
    assert "Seconds of the rounds: sampling 60 (60%), rewards 10 (10%), update 30 (30%)." in text
    text = shown(groups=480, taught=0, **seconds)
    assert "No group taught anything: in all 480 groups every rollout earned the same, so nothing had an advantage." in text
    assert "of 480 groups (" not in text


def test_only_a_gain_that_excludes_zero_is_coloured() -> None:
    def shown(low: float, high: float) -> str:
        estimate = {"end_to_end": Estimate(mean=(low + high) / 2, ci95=(low, high), n=10)}
        return printed(run_table({"before": estimate, "after": estimate, "gain": estimate}), colour="standard")

    assert "\x1b[32m" in shown(0.1, 0.3)
    assert "\x1b[31m" in shown(-0.3, -0.1)
    assert "\x1b[32m" not in shown(-0.1, 0.3)
    assert "\x1b[31m" not in shown(-0.3, 0.1)


def test_what_was_not_measured_is_a_dash() -> None:
    nan = float("nan")
    nothing = {"faithful": Estimate(mean=nan, ci95=(nan, nan), n=0)}
    text = printed(run_table({"before": {}, "after": nothing, "gain": {}}))
    assert next(row for row in text.splitlines() if "faithful" in row).split() == ["faithful", "-", "-", "-", "0"]


def test_no_minus_stands_before_a_zero() -> None:
    assert percent(Estimate(mean=-0.0001, ci95=(-0.004, 0.004), n=9)) == "0.0 [0, 0]"
    assert percent(Estimate(mean=-0.0001, ci95=(-0.004, 0.004), n=9), signed=True) == "+0.0 [-0.4, +0.4]"


def test_markdown_has_one_row_for_each_cell_and_counts_what_is_missing(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run("study/none/seed0", after=0.3)
    make_run("study/none/seed1", after=0.4)
    make_run("study/ngdiff/seed0", finished=False)
    lines = runs_markdown(load_runs(tmp_path)).splitlines()
    # Two seeds, 30 and 40 %: mean 35; the interval is 7 points each way for each seed, and stays so.
    assert lines[2].startswith("| none | 2 | 4.0 [-3, 11] | 35.0 [28, 42] | +31.0 [+24.0, +38.0] |")
    assert lines[-1] == "1 of 3 runs not finished and not shown."
    assert len({line.count("|") for line in lines[:3]}) == 1


def test_markdown_of_finished_runs_counts_nothing_that_is_missing(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run("study/none/seed0", after=0.3)
    assert runs_markdown(load_runs(tmp_path)).splitlines()[-1].startswith("| none | 1 |")


def test_the_contributions_to_a_gain_stand_below_it_with_what_they_are(run_dir: Path) -> None:
    file = run_dir / "summary.json"
    summary = json.loads(file.read_text())
    assert "via a_p" not in printed(run_table(load_run(run_dir).summary)), "else this test could not fail"
    summary["gain"] |= {key: {"mean": 0.1234, "ci95": [0.1, 0.15], "n": 200} for key in CONTRIBUTIONS}
    file.write_text(json.dumps(summary))
    rows = [row.split() for row in printed(run_table(load_run(run_dir).summary)).splitlines()]
    below = [row[:2] for row in rows[next(place for place, row in enumerate(rows) if row[:1] == ["end"]) + 1 :]]
    assert below[:4] == [["via", "a_p"], ["via", "a_r"], ["via", "both"], ["other", "+12.3"]]
    assert "The change of a is a sum:" in " ".join(word for row in rows for word in row)
