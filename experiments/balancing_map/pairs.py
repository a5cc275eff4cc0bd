"""One row for each pair of runs of the map: what was known before training, and what balancing changed.

    python experiments/balancing_map/pairs.py multirun/balancing_map      (adds to results/pairs.csv beside it)

A pair is two finished runs of one configuration and seed, `none` and `ngdiff`. Differences are paired by test sample; 95 % intervals
cluster samples by puzzle (docs/statistics.md). Accuracies and shares are fractions in [0, 1], five decimals.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from percasym.report.load import HEADLINE, Grades, RunRecord, load_runs, verdicts
from percasym.statistics import gain
from percasym.training.audit import Coupling
from percasym.training.span_gradients import part

FIRST = {
    ("Sudoku", "11-13", 4, 300), ("Sudoku", "9-11", 4, 300), ("Sudoku", "7-9", 4, 300), ("Sudoku", "10-12", 4, 300),
    ("GraphColoring", "5-5", 3, 300), ("GraphColoring", "6-6", 3, 600),
}  # fmt: skip
"""Task, givens or nodes, verbosity and steps of the settings that make the rule: the first six of conf/experiment/balancing_map.yaml."""
RESULTS = Path(__file__).parent / "results" / "pairs.csv"


def setting(run: RunRecord) -> dict[str, Any]:
    """The configuration of a run without what differs within a pair."""
    return {name: value for name, value in run.config.items() if name not in ("balance", "run", "launch", "study", "hydra")}


def is_first(pair: Mapping[str, Any]) -> bool:
    """Whether the rule may be made from this pair."""
    return (pair["task"], pair["givens_or_nodes"], pair["verbosity"], pair["steps"]) in FIRST


def row(none: RunRecord, ngdiff: RunRecord) -> dict[str, Any]:
    """The numbers of one pair."""
    before, first, task = none.grades_before, none.metrics[1], none.config["task"]
    counts = [first[f"tokens/{span}"] for span in ("perception", "reasoning")]
    norms = [ngdiff.metrics[1][f"grad/{span}"] for span in ("perception", "reasoning")]
    assert before is not None and none.summary is not None and ngdiff.summary is not None
    found: dict[str, Any] = {
        "task": task["_target_"].rpartition(".")[2],
        "model": none.config["model"]["_target_"].rpartition(".")[2],
        "givens_or_nodes": "{}-{}".format(*(task.get("givens") or task["nodes"])),
        "verbosity": task["verbosity"],
        "noise": task["look"]["noise"],
        "steps": none.config["paradigm"]["steps"],
        "seed": none.config["seed"],
        "share_tokens": part(*counts),
        "share_loss": first["share/loss"],
        "share_gradient": part(*(count * norm for count, norm in zip(counts, norms, strict=True))),
        "coupling": Coupling.of(verdicts(before)).value,
        **{f"before_{name}": none.summary.before[metric].mean for metric, name in HEADLINE.items()},
        **{f"none_{name}": none.summary.after[metric].mean for metric, name in HEADLINE.items()},
        **{f"ngdiff_{name}": ngdiff.summary.after[metric].mean for metric, name in HEADLINE.items()},
    }
    for metric, name in HEADLINE.items():
        change = paired(none.grades_after, ngdiff.grades_after, metric)
        found |= {f"change_{name}": change.mean, f"change_{name}_low": change.ci95[0], f"change_{name}_high": change.ci95[1]}
    return found | {"n": len(before), "role": "makes" if is_first(found) else "tests"}


def paired(old: Grades | None, new: Grades | None, metric: str) -> Any:
    """new - old of one metric over the same samples."""
    assert old is not None and new is not None and old.keys() == new.keys()
    before, after = ([side[name].grades[metric] for name in old] for side in (old, new))
    return gain(before, after, [old[name].puzzle for name in old])


def pairs(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """A row for each setting of which both runs are finished."""
    sides: dict[str, dict[str, RunRecord]] = {}
    for run in runs:
        if run.summary is not None and run.meta["status"] == "done":
            balance = run.config["balance"]["_target_"].rpartition(".")[2]
            sides.setdefault(json.dumps(setting(run), sort_keys=True, default=str), {})[balance] = run
    return [row(found["NoBalance"], found["NGDiff"]) for found in sides.values() if {"NoBalance", "NGDiff"} <= found.keys()]


SETTING = ("task", "model", "givens_or_nodes", "verbosity", "noise", "steps", "seed")
"""The columns that tell one pair from another."""


def merged(rows: Sequence[Mapping[str, Any]], path: Path = RESULTS) -> list[Mapping[str, str]]:
    """The rows of the table and these, as texts; a pair that was measured again takes its old place."""
    table: dict[tuple[str, ...], Mapping[str, str]] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            table = {tuple(old[name] for name in SETTING): old for old in csv.DictReader(file)}
    for new in rows:
        texts = {name: f"{value:.5f}" if isinstance(value, float) else str(value) for name, value in new.items()}
        table[tuple(texts[name] for name in SETTING)] = texts
    return list(table.values())


def write(rows: Sequence[Mapping[str, str]], path: Path = RESULTS) -> None:
    """Write the table."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        out.writeheader()
        out.writerows(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", type=Path, nargs="+", help="folders of the study's runs")
    found = pairs([run for folder in parser.parse_args().study for run in load_runs(folder)])
    if not found:
        parser.error("no setting there has both a finished run of balance=none and one of balance=ngdiff.")
    table = merged(found)
    write(table)
    print(f"{len(found)} pairs of these runs, {len(table)} in {RESULTS}")
