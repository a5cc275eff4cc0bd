"""What each weight of perception in the reward changed at each start, beside the outcome alone.

    python experiments/rl_regimes/weights.py multirun/rl_regimes      -> results/weights.csv beside it

A cell is compared with w = 0 of the same start over the seeds that both have, paired by seed and prompt: greedy answers to 512 test
samples, and eight sampled answers to 256 of them. 95 % intervals are over puzzles and seeds (docs/statistics.md). Values are fractions.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from percasym.report.load import HEADLINE, SAMPLED_HEADLINE, RunRecord, load_runs
from percasym.statistics import gain
from percasym.types import Estimate

RESULTS = Path(__file__).parent / "results" / "weights.csv"
STARTS = {((11, 13), 0.06): "short", ((8, 10), 0.045): "middle", ((6, 8), 0.03): "easy", ((6, 8), 0.06): "long"}
"""Givens and noise of each start."""
METRICS = (*HEADLINE, *SAMPLED_HEADLINE)


def start(run: RunRecord) -> str:
    """The start that a run began from."""
    task = run.config["task"]
    return STARTS[tuple(task["givens"]), task["look"]["noise"]]


def label(run: RunRecord) -> str:
    """How the rewards were mixed: the weight, and what else differs from the protocol."""
    paradigm, balance = run.config["paradigm"], run.config["balance"]
    weight = f"{balance.get('weight', 0.0):g}"
    more = [name for name, given in (("route", paradigm["route"]), ("not normalised", not paradigm["normalize"])) if given]
    return ", ".join([weight, *more])


def paired(before: dict[int, Any], after: dict[int, Any], metric: str) -> Estimate:
    """Mean difference over the seeds that both have, the same prompts in each."""
    values: tuple[list[Any], ...] = ([], [], [], [])
    for seed in sorted(before.keys() & after.keys()):
        for name in before[seed].keys() & after[seed].keys():
            old, new = before[seed][name], after[seed][name]
            for each, value in zip(values, (old.grades.get(metric), new.grades.get(metric), old.puzzle, seed), strict=True):
                each.append(value)
    return gain(*values)


def main(folder: str) -> None:
    """Write the table."""
    cells: dict[tuple[str, str], list[RunRecord]] = defaultdict(list)
    for run in load_runs(Path(folder)):
        if run.summary is not None and run.summary.status == "done":
            cells[start(run), label(run)].append(run)
    lines = []
    for (begin, mixed), runs in sorted(cells.items(), key=lambda each: (list(STARTS.values()).index(each[0][0]), each[0][1])):
        before = {int(run.config["seed"]): run.grades_before for run in runs}
        after = {int(run.config["seed"]): run.grades_after for run in runs}
        outcome = {int(run.config["seed"]): run.grades_after for run in cells[begin, "0"]}
        taught = fmean(run.summary.rounds["taught"] / run.summary.rounds["groups"] for run in runs if run.summary)
        line: dict[str, Any] = {"start": begin, "w": mixed, "seeds": " ".join(map(str, sorted(after))), "taught": f"{taught:.5f}"}
        for metric in METRICS:
            changed, beside = paired(before, after, metric), paired(outcome, after, metric)
            line[metric] = f"{fmean(run.summary.after[metric].mean for run in runs if run.summary):.5f}"
            for name, estimate in (("gain", changed), ("difference", beside)):
                for part, value in (("", estimate.mean), ("_low", estimate.ci95[0]), ("_high", estimate.ci95[1])):
                    line[f"{metric}_{name}{part}"] = f"{value:.5f}"
        lines.append(line)
    with RESULTS.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main(sys.argv[1])
