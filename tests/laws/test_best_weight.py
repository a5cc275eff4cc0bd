"""The script of experiments/c3_interior_optimum: a weight is never chosen by the seed on which it is compared."""

from __future__ import annotations

import runpy
from collections.abc import Sequence
from pathlib import Path

import pytest

from percasym.report.load import RunRecord, SampleGrades, Summary

SCRIPT = runpy.run_path(str(Path(__file__).resolve().parents[2] / "experiments/c3_interior_optimum/best_weight.py"))
TARGETS = {"none": "percasym.balance.none.NoBalance", "ngdiff": "percasym.balance.ngdiff.NGDiff"}
FINISHED = Summary(status="done", before={}, after={}, gain={}, share={}, seconds={}, rounds={}, num_puzzles=None)


def run(name: str, seed: int, right: Sequence[bool]) -> RunRecord:
    """A finished run of a strategy or a constant weight whose samples are right in everything or in nothing."""
    target = TARGETS.get(name, "percasym.balance.fixed.Fixed")
    balance = {"_target_": target} | ({} if name in TARGETS else {"weight": float(name)})
    made = RunRecord(path=Path(f"{name}/seed{seed}"), config={"seed": seed, "balance": balance}, meta={}, metrics={}, summary=FINISHED)
    grades = {
        ("sudoku", "test", 0, index): SampleGrades(f"puzzle {index}", dict.fromkeys(("end_to_end", "perception", "reasoning"), one))
        for index, one in enumerate(right)
    }
    made.__dict__["grades_after"] = grades  # A cached property.
    return made


def test_the_weight_of_a_seed_is_the_best_of_the_others_and_ngdiff_is_compared_with_it() -> None:
    good, bad = [True] * 6 + [False] * 2, [True] * 2 + [False] * 6
    fixed = {"0.1": (bad, good, good), "0.4": (good, bad, bad)}
    runs = [run(weight, seed, right) for weight, sides in fixed.items() for seed, right in enumerate(sides)]
    runs += [run("ngdiff", seed, good) for seed in range(3)] + [run("none", 0, bad)]
    found = SCRIPT["compared"](runs)
    assert found["weights"] == [0.1, 0.4]
    assert found["chosen"] == {0: 0.1, 1: 0.1, 2: 0.1}, "seed 1 and 2 each leave a tie, which the smaller weight wins"
    assert found["a"]["mean"] == pytest.approx((0.75 - 0.25) / 3) and found["a"]["n"] == 8
    assert found["a"]["ci95"][0] < found["a"]["mean"] < found["a"]["ci95"][1]


def test_a_weight_without_a_seed_is_refused() -> None:
    runs = [run("0.1", 0, [True]), run("ngdiff", 0, [True]), run("ngdiff", 1, [True])]
    with pytest.raises(ValueError, match=r"needs the seeds of ngdiff, \[0, 1\]; w = 0.1 has \[0\]"):
        SCRIPT["compared"](runs)
