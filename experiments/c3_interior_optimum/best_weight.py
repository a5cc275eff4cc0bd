"""Compare `ngdiff` with the best constant weight, which is chosen for each seed by a of the other seeds.

    python experiments/c3_interior_optimum/best_weight.py multirun/modest_upweighting      (writes results/best_weight.json beside it)

A weight chosen by the seeds on which it is then compared would be a maximum of noise. Differences are paired by seed and test sample, over
puzzles and seeds (docs/statistics.md); accuracies are fractions in [0, 1].
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from percasym.report.load import HEADLINE, Grades, RunRecord, load_runs
from percasym.report.study import seed_of
from percasym.runs.records import option_name
from percasym.statistics import gain

RESULTS = Path(__file__).parent / "results" / "best_weight.json"


def chosen(a: Mapping[float, Mapping[int, float]], seed: int) -> float:
    """The weight whose mean a over the seeds but `seed` is highest; the smaller one of equals.

    >>> chosen({0.1: {2: 0.50, 3: 0.44, 4: 0.52}, 0.2: {2: 0.40, 3: 0.60, 4: 0.49}}, seed=3)
    0.1
    """
    return max(sorted(a), key=lambda weight: fmean(value for other, value in a[weight].items() if other != seed))


def by_seed(runs: Iterable[RunRecord]) -> dict[int, Grades]:
    """The grades of the last evaluation of each seed. Raises ValueError where a run kept none."""
    found = {}
    for run in runs:
        if run.grades_after is None:
            raise ValueError(f"{run.path} has no samples of its last evaluation.")
        found[seed_of(run)] = run.grades_after
    return found


def compared(runs: Sequence[RunRecord]) -> dict[str, Any]:
    """The weight chosen for each seed, and `ngdiff` minus it in a, a_p and a_r."""
    sides: dict[str, list[RunRecord]] = {}
    for run in runs:
        if run.summary is not None:
            weight = run.config["balance"].get("weight")
            sides.setdefault(option_name(run.config, "balance") or "" if weight is None else f"{weight:g}", []).append(run)
    constant = {float(name): by_seed(own) for name, own in sides.items() if name[0].isdigit()}
    balanced = by_seed(sides["ngdiff"])
    a = {
        weight: {seed: fmean(float(one.grades["end_to_end"]) for one in grades.values()) for seed, grades in seeds.items()}  # type: ignore[arg-type]
        for weight, seeds in constant.items()
    }
    seeds = sorted(balanced)
    for weight, own in constant.items():
        if sorted(own) != seeds:
            raise ValueError(f"Every weight needs the seeds of ngdiff, {seeds}; w = {weight:g} has {sorted(own)}.")
    weights = {seed: chosen(a, seed) for seed in seeds}
    found: dict[str, Any] = {"weights": sorted(constant), "chosen": weights}
    for metric, name in HEADLINE.items():
        rows = []
        for seed in seeds:
            best, own = constant[weights[seed]][seed], balanced[seed]
            if best.keys() != own.keys():
                raise ValueError(f"The runs of seed {seed} were evaluated on different samples.")
            rows += [(best[key].grades[metric], own[key].grades[metric], own[key].puzzle, seed) for key in sorted(own)]
        difference = gain(*map(list, zip(*rows, strict=True)))
        found[name] = {"mean": difference.mean, "ci95": list(difference.ci95), "n": difference.n}
    return found


def main() -> None:
    """Write best_weight.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    found = compared(load_runs(parser.parse_args().study))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
