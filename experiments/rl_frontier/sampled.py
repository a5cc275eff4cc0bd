"""What RL changed in the answers that a model samples: two files of `percasym rollouts` on the same prompts, paired by prompt.

    percasym rollouts --prompts 256 --split test seed=7 model.path=START --out start.jsonl     (and task=..., as the runs had it)
    percasym rollouts --prompts 256 --split test seed=7 model.path=RUN/final --out after.jsonl
    python experiments/rl_frontier/sampled.py start.jsonl after.jsonl

Percent, 95 % bootstrap intervals that draw whole puzzles (`percasym.metrics.gain`). a, a_p and faithful are means over all rollouts,
a_r over as many continuations of p*.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

from percasym.diagnosis.rollout_file import RolloutGroup, read_rollouts
from percasym.metrics import gain

METRICS = ("a", "a_p", "a_r", "faithful")


def means(group: RolloutGroup) -> Mapping[str, float | None]:
    """What the rollouts of one prompt are worth on average."""
    grades = group.grades
    return {
        "a": fmean(one.outcome for one in grades),
        "a_p": fmean(one.perception for one in grades),
        "a_r": group.reasoning,
        "faithful": fmean(bool(one.faithful) for one in grades),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("before", "after"):
        parser.add_argument(name, type=Path, metavar=f"{name.upper()}.jsonl")
    given = parser.parse_args()
    try:
        before, after = ({group.rollouts[0].prompt.key: group for group in read_rollouts(path)} for path in (given.before, given.after))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if before.keys() != after.keys():
        sys.exit("These files have other prompts. Sample both with the same task, seed, --split and --prompts.")
    old, new = ([means(one) for one in side.values()] for side in (before, {key: after[key] for key in before}))
    puzzles = [one.truth for one in before.values()]
    print(f"{len(puzzles)} prompts of {len(set(puzzles))} puzzles")
    for name in METRICS:
        left, right = ([one[name] for one in side] for side in (old, new))
        found = gain(left, right, puzzles)
        low, high = found.ci95
        shown = " to ".join(f"{100 * fmean(value for value in side if value is not None):.1f}" for side in (left, right))
        print(f"{name:>9}: {shown}, {100 * found.mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]")


if __name__ == "__main__":
    main()
