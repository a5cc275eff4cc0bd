"""Where the time of an RL step goes: sampling, rewards, the update.

    python benchmarks/rl_step.py                       5 steps at scale=tiny, one thread: two minutes on a free core
    python benchmarks/rl_step.py --steps 2 -- paradigm.batch_size=2 reward=consensus

An ordinary run in a folder that is thrown away, without diagnoses, its evaluations cut down to one sample; what it logs as `time/*`
is shown. The first step is not counted. Words after `--` are for train.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "rl_step.json"
PARTS = ("rollout", "reward", "update", "step")
BRIEF = ["evaluation.num_samples=1", "evaluation.num_curve_samples=1", "rollout.max_new_tokens=704", "evaluation.max_new_tokens=1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        sizes = [f"paradigm.steps={asked.steps + 1}", "paradigm.eval_every=0", "paradigm.diagnose_every=0"]
        command = [sys.executable, str(ROOT / "train.py"), "paradigm=rl", *sizes, *BRIEF, f"hydra.run.dir={run}", *asked.words]
        subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, check=True)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [row for row in rows if "time/step_seconds" in row][1:]
    spent = {part: median(row[f"time/{part}_seconds"] for row in steps) for part in PARTS}
    tokens = median(row["tokens/perception"] + row["tokens/reasoning"] for row in steps)
    for part in PARTS:
        print(f"{part:>8}: {spent[part]:7.2f} s of the clock, {100 * spent[part] / spent['step']:3.0f} %")
    print(f"{tokens:.0f} tokens a step, {tokens / spent['rollout']:.0f} sampled a second")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"words": asked.words, "seconds": spent, "tokens": tokens}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
