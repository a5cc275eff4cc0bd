"""What is known of each start before RL: accuracies, couplings and the predicted weight, from its sampled answers.

    percasym rollouts task=sudoku model=internvl35 paradigm=rl ... model.path=START --prompts 128 --out NAME/rollouts.jsonl
    python experiments/rl_regimes/starts.py SHORT MIDDLE EASY LONG     (folders of rollouts.jsonl, in this order) -> results/starts.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean, median
from typing import Any

from percasym.diagnosis.correlations import Correlation
from percasym.diagnosis.diagnose import diagnose
from percasym.diagnosis.rollout_file import read_rollouts

RESULTS = Path(__file__).parent / "results" / "starts.json"
STARTS = (
    ("short", "[11,13]", 0.06, "default"),
    ("middle", "[8,10]", 0.045, "noise 0.045, jitter 0.065, contrast [0.48, 1]"),
    ("easy", "[6,8]", 0.03, "noise 0.03, jitter 0.05, contrast [0.6, 1]"),
    ("long", "[6,8]", 0.06, "default"),
)
"""Name, `task.givens`, `task.look.noise` and the whole look in words."""
COMMAND = (
    "python train.py -m experiment=rl_regimes_starts; percasym rollouts task=sudoku model=internvl35 paradigm=rl task.verbosity=0 "
    "task.variety_frac=0 evaluation.max_new_tokens=200 task.givens=... task.look...=... model.path=... seed=11 --prompts 128"
)


def main(folders: list[str]) -> None:
    """Write the file."""
    starts = [
        {"name": name, "givens": givens, "noise": noise, "look": look, **measured(Path(folder) / "rollouts.jsonl")}
        for (name, givens, noise, look), folder in zip(STARTS, folders, strict=True)
    ]
    RESULTS.write_text(json.dumps({"command": COMMAND, "starts": starts}, indent=1) + "\n", encoding="utf-8")


def measured(path: Path) -> dict[str, Any]:
    """The numbers of one start."""
    groups = read_rollouts(path)
    found = diagnose(groups)
    oracle = next(reward for reward in found.rewards if reward.name == "oracle")
    grades = [grade for group in groups for grade in group.grades]
    known = [group.reasoning for group in groups if group.reasoning is not None]
    numbers = {
        "prompts": found.num_groups,
        "a": fmean(grade.outcome for grade in grades),
        "a_p": fmean(grade.perception for grade in grades),
        "a_r": fmean(known),
        "tokens": median(len(rollout.completion.ids) for group in groups for rollout in group.rollouts),
        "agree_perception": oracle.scores.zero_variance,
        "agree_outcome": found.outcome.zero_variance,
        "alone": oracle.alone,
        "w": oracle.weight.weight,
        "w_low": oracle.weight.ci95[0],
        "w_high": oracle.weight.ci95[1],
    }
    return numbers | r("within", found.outcome_perception.within) | r("across", found.outcome_perception.across)


def r(name: str, of: Correlation) -> dict[str, float]:
    """A correlation and its interval."""
    return {f"{name}_r": of.r, f"{name}_low": of.ci95[0], f"{name}_high": of.ci95[1]}


if __name__ == "__main__":
    main(sys.argv[1:])
