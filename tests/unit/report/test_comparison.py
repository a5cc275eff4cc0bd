"""The comparison of a study's cells: goldens worked by hand, the words of the verdicts, and the refusals."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from percasym.cli.main import main
from percasym.report.comparison import Comparison, Verdict, compare, findings, verdict
from percasym.report.comparison_table import comparison_rows
from percasym.report.load import CONTRIBUTIONS, last_evaluation, load_runs, read_grades
from percasym.report.study import measured, study_of
from percasym.report.tables import cells_csv
from percasym.statistics import change, gain, proportion
from percasym.types import Estimate

ALL_WRONG: Sequence[tuple[Any, Any, Any]] = [(False, False, False)] * 8
"""a, a_p and a_r of eight samples: the base model fails."""
REASONING_RIGHT = [(True, False, True)] * 4 + [(False, False, False)] * 4
"""Four samples have a right answer and right reasoning, none a right percept."""
PERCEPTION_RIGHT = [(False, True, False)] * 8


def compared(study: Path) -> Comparison:
    (group,) = study_of(load_runs(study), "x").groups
    return compare(group)


def one(mean: float, low: float, high: float) -> Estimate:
    return Estimate(mean=mean, ci95=(low, high), n=8)


def test_the_asymmetry_is_the_gain_of_reasoning_minus_that_of_perception(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    # Changes of (a_p, a_r) of the 4 samples: (0, +1), (0, +1), (+1, +1), (-1, 0); differences +1, +1, 0, +1; mean 3 / 4.
    before = [(False, False, False)] * 3 + [(False, True, False)]
    after = [(True, False, True), (True, False, True), (True, True, True), (False, False, False)]
    cell_run(tmp_path / "s", "none", 0, 0.5, grades=(before, after))
    (cell,) = compared(tmp_path).cells
    assert cell.asymmetry.mean == 0.75
    # Four changes of mean square 3 / 4 and two pseudo-values of mean square 1: centre 3 / 6, reach 1.96 sqrt(3 + 2 - 6 / 4) / 6 = .611.
    assert cell.asymmetry.ci95 == pytest.approx((-0.1111, 1.1111), abs=1e-3)
    assert cell.asymmetry_verdict is Verdict.unresolved


def test_the_asymmetry_counts_a_puzzle_once(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    # Eight puzzles, half of them with a difference of 1: centre 4 / 10, reach 1.96 sqrt(4 + 2 - 1.6) / 10 = .411.
    cell_run(tmp_path / "eight", "none", 0, 0.5, grades=(ALL_WRONG, REASONING_RIGHT))
    alone = compared(tmp_path / "eight").cells[0].asymmetry
    assert alone.mean == 0.5
    assert alone.ci95 == pytest.approx((-0.0111, 0.8111), abs=1e-3)
    # Two puzzles, one of ones and one of zeros: hardly anything is known of a third.
    cell_run(tmp_path / "two", "none", 0, 0.5, grades=(ALL_WRONG, REASONING_RIGHT), puzzles=["ones"] * 4 + ["zeros"] * 4)
    clustered = compared(tmp_path / "two").cells[0].asymmetry
    assert clustered.mean == 0.5
    assert clustered.ci95[1] - clustered.ci95[0] > 1.5 * (alone.ci95[1] - alone.ci95[0])


def test_seeds_are_averaged_and_widen_the_interval(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    everything = [(True, False, True)] * 8
    cell_run(tmp_path / "s", "none", 0, 0.5, grades=(ALL_WRONG, REASONING_RIGHT), puzzles=["ones"] * 4 + ["zeros"] * 4)
    cell_run(tmp_path / "s", "none", 1, 0.5, grades=(ALL_WRONG, everything), puzzles=["ones"] * 4 + ["zeros"] * 4)
    (cell,) = compared(tmp_path).cells
    assert cell.num_seeds == 2
    assert (cell.asymmetry.mean, cell.asymmetry.n) == (0.75, 8), "of 1/2 and 1"
    gaps = [1.0] * 4 + [0.0] * 4 + [1.0] * 8
    assert cell.asymmetry == change(gaps, (["ones"] * 4 + ["zeros"] * 4) * 2, [0] * 8 + [1] * 8, reach=2.0)


def test_a_sample_that_was_not_measured_is_left_out(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    after = [(True, False, True)] * 2 + [(True, None, True), (True, False, None)]
    cell_run(tmp_path / "s", "none", 0, 0.5, grades=(ALL_WRONG[:4], after))
    assert compared(tmp_path).cells[0].asymmetry.mean == 1.0


@pytest.mark.parametrize("before", [None, ALL_WRONG[:5]])
def test_without_the_same_samples_before_there_is_no_asymmetry(cell_run: Callable[..., Path], tmp_path: Path, before: Any) -> None:
    cell_run(tmp_path / "s", "none", 0, 0.5, grades=None if before is None else (before, PERCEPTION_RIGHT))
    comparison = compared(tmp_path)
    assert math.isnan(comparison.cells[0].asymmetry.mean)
    assert comparison.cells[0].asymmetry_verdict is None
    assert findings(comparison) == (), "what was not measured is no finding"


def test_before_after_gain_and_difference_of_each_cell(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    cell_run(tmp_path / "s", "none", 0, 0.5, grades=(ALL_WRONG, REASONING_RIGHT))
    cell_run(tmp_path / "s", "ngdiff", 0, 0.7, grades=(ALL_WRONG, PERCEPTION_RIGHT))
    comparison = compared(tmp_path)
    assert [(cell.label, cell.is_baseline) for cell in comparison.cells] == [("none", True), ("ngdiff", False)]
    assert comparison.num_samples == (8,)
    none, ngdiff = (cell.changes["perception"] for cell in comparison.cells)
    assert (none.before.mean, none.after.mean, none.gain.mean) == pytest.approx((0.1, 0.5, 0.4)), "of summary.json"
    assert none.gain.ci95 == pytest.approx((0.35, 0.45))
    assert math.isnan(none.difference.mean) and none.verdict is None, "the baseline has no difference to itself"
    # All of 8 pairs turned right. Agresti and Min: n = 10, centre .8, reach 1.96 sqrt(9 - 10 * .64) / 10 = .316.
    assert ngdiff.difference.mean == 1.0
    assert ngdiff.difference.ci95 == pytest.approx((0.484, 1.0), abs=1e-3)
    assert ngdiff.verdict is Verdict.clear
    # 4 of 8 turned wrong: centre -.4, reach 1.96 sqrt(5 - 10 * .16) / 10 = .361.
    a, a_r = (comparison.cells[1].changes[metric] for metric in ("end_to_end", "reasoning"))
    assert a_r.difference.ci95 == a.difference.ci95 == pytest.approx((-0.761, -0.039), abs=1e-3)
    assert a.verdict is Verdict.against, "balancing was predicted to raise a"
    assert a_r.verdict is Verdict.clear, "there is no prediction for a_r"


def test_each_finding_is_a_sentence_with_number_interval_and_verdict(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    cell_run(tmp_path / "s", "none", 0, 0.5, grades=(ALL_WRONG, REASONING_RIGHT))
    cell_run(tmp_path / "s", "ngdiff", 0, 0.7, grades=(ALL_WRONG, PERCEPTION_RIGHT))
    sentences = [finding.sentence for finding in findings(compared(tmp_path))]
    assert sentences == [
        "none: a_r gained 50.0 points more than a_p (95 % interval [-1.1, +81.1], n = 8): not resolved at this n.",
        "ngdiff: a is 50.0 points lower than with none (95 % interval [-76.1, -3.9], n = 8): against the prediction. "
        "-50.0 = +0.0 [-19.6, +19.6] via perception, +0.0 [-19.6, +19.6] via reasoning, -50.0 [-76.1, -3.9] via both, "
        "+0.0 [-19.6, +19.6] otherwise.",
        "ngdiff: a_p is 100.0 points higher than with none (95 % interval [+48.4, +100.0], n = 8): clear of 0.",
        "ngdiff: costs 50.0 points of a_r against none (95 % interval [-76.1, -3.9], n = 8): clear of 0.",
    ]


def test_a_change_of_a_has_its_contributions_sample_by_sample(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    # none misreads samples 0 to 2, which it would answer right from p*; ngdiff reads 0 and 1 and has unlearned to answer 1 and 3.
    start = [(False, False, False)] * 4
    none = [(False, False, True)] * 2 + [(True, False, True), (True, True, True)]
    ngdiff = [(True, True, True), (False, True, False), (False, False, True), (False, True, False)]
    cell_run(tmp_path / "s", "none", 0, 0.5, grades=(start, none))
    cell_run(tmp_path / "s", "ngdiff", 0, 0.5, grades=(start, ngdiff))
    changes = compared(tmp_path).cells[1].changes
    assert {key: changes[key].difference.mean for key in CONTRIBUTIONS} == {
        "via_perception": 2 / 4,  # Samples 0 and 1: right from p*, wrong from what none saw.
        "via_reasoning": -1 / 4,  # Sample 3.
        "via_both": -1 / 4,  # Sample 1: the right percept would have paid, had reasoning stayed.
        "otherwise": -1 / 4,  # Sample 2: a wrong percept had the right answer by chance.
    }
    assert sum(changes[key].difference.mean for key in CONTRIBUTIONS) == changes["end_to_end"].difference.mean == -1 / 4
    assert changes["via_both"].gain.mean == 1 / 4, "of sample 0: before training p* did not help"
    assert all(math.isnan(side.mean) for key in CONTRIBUTIONS for side in (changes[key].before, changes[key].after))
    assert changes["via_perception"].difference == change([1.0, 1.0, 0.0, 0.0], reach=1.0)


def test_without_a_r_a_change_has_no_parts(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    unknown = [(False, False, None)] * 4
    cell_run(tmp_path / "s", "none", 0, 0.5, grades=(unknown, unknown))
    cell_run(tmp_path / "s", "ngdiff", 0, 0.5, grades=(unknown, [(True, True, None)] * 4))
    assert list(compared(tmp_path).metrics) == ["end_to_end", "perception", "reasoning"]
    assert all(" = " not in finding.sentence.partition(": ")[2].replace("n = ", "") for finding in findings(compared(tmp_path)))


def recorded_without(run: Path) -> None:
    """Make the summary that of a version without contributions."""
    file = run / "summary.json"
    summary = json.loads(file.read_text())
    summary["gain"] = {key: one for key, one in summary["gain"].items() if key not in CONTRIBUTIONS}
    file.write_text(json.dumps(summary))


def test_contributions_of_old_and_new_seeds_are_of_all_samples(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    seen = ([(False, False, True)] * 4, [(True, True, True)] * 4)
    both = ([(False, False, False)] * 4, [(True, True, True)] * 4)
    recorded_without(cell_run(tmp_path / "s", "none", 0, 0.5, grades=seen))
    cell_run(tmp_path / "s", "none", 1, 0.5, grades=both)
    changes = compared(tmp_path).cells[0].changes
    assert (changes["via_perception"].gain.mean, changes["via_both"].gain.mean) == (0.5, 0.5)


def test_a_cell_that_lost_samples_has_its_recorded_contributions_or_none(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    grades = ([(False, False, True)] * 4, [(True, True, True)] * 4)
    run = cell_run(tmp_path / "s", "none", 0, 0.5, grades=grades)
    (run / "samples" / "test_000000.jsonl").unlink()
    (group,) = study_of(load_runs(tmp_path), "x").groups
    summary = json.loads((run / "summary.json").read_text())
    assert set(group.headline) == {"end_to_end", "perception", "reasoning"}, "nothing was recorded"
    summary["gain"] |= {key: {"mean": 0.25, "ci95": [0.1, 0.4], "n": 4} for key in CONTRIBUTIONS}
    (run / "summary.json").write_text(json.dumps(summary))
    (group,) = study_of(load_runs(tmp_path), "x").groups
    found = group.cells[0].estimate("via_perception", "gain")
    assert (found.mean, found.ci95, found.n) == (0.25, pytest.approx((0.1, 0.4)), 4)


def test_tables_of_a_part_hold_gains_and_differences_only(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    grades = ([(False, False, True)] * 4, [(True, True, True)] * 4)
    run = cell_run(tmp_path / "s", "none", 0, 0.5, grades=grades)
    (record,) = load_runs(run)
    assert record.summary is not None and measured(record, record.summary).gain["via_perception"].mean == 1.0
    lines = cells_csv(study_of([record], "x")).splitlines()
    columns = dict(zip(lines[0].split(","), next(line for line in lines if ",via_perception," in line).split(","), strict=True))
    assert (columns["mean"], columns["before"], columns["gain"], columns["n"]) == ("", "", "1", "4")


def test_seeds_of_two_settings_are_no_cell(cell_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def record(run: Path, **task: Any) -> None:
        file = run / "config.yaml"
        config = yaml.safe_load(file.read_text())
        file.write_text(yaml.safe_dump(config | {"task": {**(config.get("task") or {}), **task}}))

    first, second = (cell_run(tmp_path / "s", "none", seed, 0.5, grades=(ALL_WRONG, REASONING_RIGHT)) for seed in (0, 1))
    record(first, givens=[9, 11], path="here")
    assert main(["compare", str(tmp_path)]) == 0, "an option that only one of them recorded may be new"
    record(second, givens=[8, 10], path="elsewhere")
    capsys.readouterr()
    assert main(["compare", str(tmp_path)]) == 2
    refused = capsys.readouterr().err
    assert "count as seeds of one cell, and differ in task.givens: [9, 11] and [8, 10]. Name the runs of one study." in refused
    assert refused.count("\n") == 1


def test_a_small_difference_in_perception_is_not_resolved(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    cell_run(tmp_path / "s", "none", 0, 0.5, grades=(ALL_WRONG, PERCEPTION_RIGHT))
    cell_run(tmp_path / "s", "0.5", 0, 0.5, grades=(ALL_WRONG, [*PERCEPTION_RIGHT[:7], (False, False, True)]))
    sentences = {finding.sentence.split(" (")[0]: finding.verdict for finding in findings(compared(tmp_path))}
    assert sentences == {
        "none: a_r gained 100.0 points less than a_p": Verdict.against,
        "0.5: a is 0.0 points higher than with none": Verdict.unresolved,
        "0.5: a_p is 12.5 points lower than with none": Verdict.unresolved,
        "0.5: a_r is 12.5 points higher than with none": Verdict.unresolved,
    }


def test_without_a_baseline_the_asymmetry_of_each_cell_is_a_finding_without_a_prediction(
    cell_run: Callable[..., Path], tmp_path: Path
) -> None:
    for balance in ("0.5", "ngdiff"):
        cell_run(tmp_path / "s", balance, 0, 0.5, grades=(ALL_WRONG, PERCEPTION_RIGHT))
    comparison = compared(tmp_path)
    assert comparison.baseline is None
    assert [finding.sentence for finding in findings(comparison)] == [
        # Centre -8 / 10, reach 1.96 sqrt(8 + 2 - 6.4) / 10 = .372.
        f"{cell}: a_r gained 100.0 points less than a_p (95 % interval [-117.2, -42.8], n = 8): clear of 0."
        for cell in ("0.5", "ngdiff")
    ]


@pytest.mark.parametrize(
    ("interval", "predicted", "word"),
    [
        ((0.01, 0.2), True, "clear of 0"),
        ((-0.01, 0.2), True, "not resolved at this n"),
        ((0.0, 0.2), True, "not resolved at this n"),
        ((-0.2, 0.0), True, "not resolved at this n"),
        ((-0.2, -0.01), True, "against the prediction"),
        ((-0.2, -0.01), False, "clear of 0"),
        ((0.01, 0.2), False, "clear of 0"),
        ((-0.1, 0.2), False, "not resolved at this n"),
    ],
)
def test_the_words_of_a_verdict_are_fixed(interval: tuple[float, float], predicted: bool, word: str) -> None:
    assert verdict(one(sum(interval) / 2, *interval), predicted=predicted) == word


def test_what_was_not_measured_has_no_verdict() -> None:
    assert verdict(one(math.nan, math.nan, math.nan), predicted=True) is None


def test_two_runs_of_one_cell_and_seed_are_refused(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    for study in ("one", "two"):
        cell_run(tmp_path / study, "none", 0, 0.5)
    with pytest.raises(ValueError, match=r"one/.*seed0 and .*two/.*seed0 are the same cell and seed\. Name the runs of one study\."):
        compared(tmp_path)


@pytest.mark.parametrize("other", [("ngdiff", 0), ("none", 1)], ids=["another cell", "another seed"])
def test_runs_on_different_rows_are_not_compared_and_the_report_says_so(
    cell_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture, other: tuple[str, int]
) -> None:
    cell_run(tmp_path / "s", "none", 0, 0.5, grades=(ALL_WRONG, REASONING_RIGHT), data="aaaa")
    changed = cell_run(tmp_path / "s", *other, 0.7, grades=(ALL_WRONG, PERCEPTION_RIGHT), data="bbbb")
    said = f"seed0 and {changed} were run on different data (fingerprints aaaa and bbbb); only runs on the same rows are compared. Name"
    assert main(["compare", str(tmp_path / "s")]) == 2
    refused = capsys.readouterr().err
    assert said in refused and refused.count("\n") == 1
    assert main(["report", str(tmp_path / "s"), "--out", str(tmp_path / "out")]) == 0
    assert said in capsys.readouterr().out
    page = (tmp_path / "out" / "report.md").read_text()
    assert "Not compared: " in page and "[-76.1, -3.9]" not in page + (tmp_path / "out" / "cells.csv").read_text()


def test_runs_on_the_same_rows_are_compared(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    for balance, seed in (("none", 0), ("ngdiff", 0), ("none", 1)):
        cell_run(tmp_path / "s", balance, seed, 0.5, grades=(ALL_WRONG, PERCEPTION_RIGHT), data="aaaa")
    assert compared(tmp_path).cells[1].changes["perception"].difference.n == 8


def test_samples_of_other_puzzles_are_not_paired(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    cell_run(tmp_path / "s", "none", 0, 0.5, grades=(ALL_WRONG, REASONING_RIGHT))
    cell_run(tmp_path / "s", "ngdiff", 0, 0.7, grades=(ALL_WRONG, PERCEPTION_RIGHT), puzzles=[f"larger {i}" for i in range(8)])
    assert math.isnan(compared(tmp_path).cells[1].changes["perception"].difference.mean)


@pytest.mark.parametrize(
    ("damage", "lacks"),
    [
        (lambda text: text[: len(text) // 2], "it is cut off: "),
        (lambda text: text.replace('"reasoning": true', '"reasoning": "yes"'), "it has no key, p* or grades: "),
        (lambda text: text.replace('"index": ', '"place": '), "it has no key, p* or grades: "),
        (lambda text: text.replace('"grades": {', '"grades": ["', 1), "it has no key, p* or grades: "),
    ],
    ids=["cut", "a text for a grade", "a key without its index", "a list of grades"],
)
def test_samples_that_a_run_would_not_write_are_refused_with_their_line(
    cell_run: Callable[..., Path], tmp_path: Path, damage: Callable[[str], str], lacks: str
) -> None:
    file = last_evaluation(cell_run(tmp_path / "s", "none", 0, 0.5, grades=(ALL_WRONG, REASONING_RIGHT)))
    assert file is not None
    assert len(read_grades(file)) == 8
    file.write_text(damage(file.read_text()))
    with pytest.raises(ValueError, match=r"^Line \d of .*test_000004\.jsonl is no test record, for " + re.escape(lacks)):
        read_grades(file)


def with_sampled(run: Path, before: Sequence[float], after: Sequence[float], puzzles: Sequence[str]) -> None:
    """Add sampled a of each prompt to a finished run, as an evaluation writes it."""
    summary = json.loads((run / "summary.json").read_text())
    parts = {"before": proportion(before, puzzles), "after": proportion(after, puzzles), "gain": gain(before, after, puzzles)}
    for values, path in zip((before, after), sorted(run.glob("samples/test_*.jsonl")), strict=True):
        records = [json.loads(line) for line in path.read_text().splitlines()]
        kept = [
            {"key": r["key"], "truth": r["truth"], "puzzle": puzzle, "grades": {"sampled_end_to_end": value}}
            for r, value, puzzle in zip(records, values, puzzles, strict=False)
        ]
        path.with_name(path.name.replace("test_", "sampled_")).write_text("".join(json.dumps(one) + "\n" for one in kept))
    for part, found in parts.items():
        summary[part]["sampled_end_to_end"] = {"mean": found.mean, "ci95": list(found.ci95), "n": found.n}
    (run / "summary.json").write_text(json.dumps(summary))


def test_sampled_answers_are_compared_by_prompt_beside_the_greedy_ones(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    puzzles = ["one", "one", "two", "three", "four", "five"]
    before, none, half = [0.0, 0.25, 0.5, 0.125, 0.0, 0.5], [0.25, 0.25, 0.5, 0.5, 0.0, 0.5], [0.5, 0.5, 0.5, 0.75, 0.25, 0.5]
    for balance, after in (("none", none), ("0.5", half)):
        run = cell_run(tmp_path / "s", balance, 0, 0.5, grades=(ALL_WRONG, REASONING_RIGHT), puzzles=[*puzzles, "six", "seven"])
        with_sampled(run, before, after, puzzles)
    comparison = compared(tmp_path)
    assert comparison.metrics["sampled_end_to_end"] == "sampled a"
    assert "sampled_reasoning" not in comparison.metrics, "no run measured it"
    first, second = (cell.changes["sampled_end_to_end"] for cell in comparison.cells)
    assert first.after == proportion(none, puzzles)
    assert second.gain == gain(before, half, puzzles)
    assert second.difference == gain(none, half, puzzles)
    (said,) = (finding.sentence for finding in findings(comparison) if "sampled a " in finding.sentence)
    assert said.startswith("0.5: sampled a is 16.7 points higher than with none (95 % interval [")
    assert ", n = 6 prompts): " in said, "not the number of greedy samples"
    assert any(row.metric == "sampled a" for row in comparison_rows(comparison))


def test_runs_without_sampled_answers_are_compared_as_before(cell_run: Callable[..., Path], tmp_path: Path) -> None:
    cell_run(tmp_path / "s", "none", 0, 0.5, grades=(ALL_WRONG, REASONING_RIGHT))
    assert list(compared(tmp_path).metrics) == ["end_to_end", *CONTRIBUTIONS, "perception", "reasoning"]
