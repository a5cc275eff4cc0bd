"""What each weight of perception in the reward changed at each start, beside the outcome alone.

    python experiments/rl_regimes/weights.py multirun/rl_regimes      -> results/weights.csv beside it

The cells of one start are compared as those of a study are (`percasym.report.study`): greedy answers to 512 test samples, and eight sampled
answers to 256 of them, paired by seed and sample. Values are fractions.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from percasym.report.load import RunRecord, load_runs
from percasym.report.study import Cell, CellGroup, study_of

RESULTS = Path(__file__).parent / "results"


def at(start: dict[str, Any], run: RunRecord) -> bool:
    """Whether a run began from this start."""
    task = run.config["task"]
    return list(task["givens"]) == json.loads(start["givens"]) and task["look"]["noise"] == start["noise"]


def taught(cell: Cell) -> float:
    """Share of the groups whose rollouts earned differently."""
    return fmean(run.summary.rounds["taught"] / run.summary.rounds["groups"] for run in cell.runs if run.summary)


def lines(start: str, group: CellGroup) -> list[dict[str, Any]]:
    """One for each cell."""
    found: list[dict[str, Any]] = [
        {"start": start, "cell": cell.label, "seeds": len(cell.runs), "taught": f"{taught(cell):.5f}"} for cell in group.cells
    ]
    for metric in group.headline:
        estimates = {"": group.estimates(metric), "_gain": group.estimates(metric, "gain"), "_difference": group.differences(metric)}
        for name, each in estimates.items():
            for line, one in zip(found, each, strict=True):
                parts = (("", one.mean), ("_low", one.ci95[0]), ("_high", one.ci95[1]))
                line |= {f"{metric}{name}{part}": f"{value:.5f}" for part, value in parts}
    return found


def main(folder: str) -> None:
    """Write the table."""
    runs, found = load_runs(Path(folder)), []
    for start in json.loads((RESULTS / "starts.json").read_text(encoding="utf-8"))["starts"]:
        (group,) = study_of([run for run in runs if at(start, run)], start["name"]).groups
        found += lines(start["name"], group)
    with (RESULTS / "weights.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)


if __name__ == "__main__":
    main(sys.argv[1])
