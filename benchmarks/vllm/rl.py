"""RL with the native engine and with vLLM from one seed: the rewards of every round, and whether they agree.

    make bench-vllm                                                                        20 rounds, at temperature 1 and greedy
    PYTHONPATH=tests/vllm/stubs .venv-vllm/bin/python benchmarks/vllm/rl.py --steps 5

The packaged Qwen3-VL on Sudoku, `scale=tiny`, 12 prompts of 8 rollouts a round, one thread, float32. Both runs draw the same prompts. At
temperature 1 the engines draw other random numbers, so their rewards differ as two seeds do; the differences of the rounds are paired by
their prompts, and their mean has a 95 % interval (Student's t over rounds). Greedy (temperature 0: `rollout.top_k=1`) all rollouts of a
prompt are one, so no group has an advantage and no weight moves: the rewards of all rounds must be equal, but for ties of two logits.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "vllm_rl.json"
REWARDS = {"a": "reward/outcome/mean", "a_p": "reward/perception/mean"}
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "VLLM_TARGET_DEVICE": "cpu", "HF_HUB_OFFLINE": "1"}
T975 = {4: 2.776, 9: 2.262, 19: 2.093}
"""Student's t by degrees of freedom."""
ARMS = {"temperature 1": ("rollout.top_k=0", "paradigm.group_size=8"), "greedy": ("rollout.top_k=1", "paradigm.group_size=2")}


def run(folder: Path, engine: str, words: tuple[str, ...], steps: int) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl that hold a round."""
    fixed = [
        "paradigm=rl", f"rollout={engine}", f"paradigm.steps={steps}", "paradigm.lr=4e-5", "paradigm.eval_every=0", "paradigm.save_every=0",
        "paradigm.diagnose_every=0", "evaluation.num_samples=1", "evaluation.num_curve_samples=1", f"hydra.run.dir={engine}",
    ]  # fmt: skip
    subprocess.run([sys.executable, str(ROOT / "train.py"), *fixed, *words], cwd=folder, env=os.environ | ENVIRONMENT, check=True)
    lines = [json.loads(line) for line in (folder / engine / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if REWARDS["a"] in line]


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of its 95 % interval."""
    return fmean(values), T975.get(len(values) - 1, 2.0) * stdev(values) / math.sqrt(len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    asked = parser.parse_args()
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for arm in asked.arms:
        with tempfile.TemporaryDirectory() as folder:
            rounds = {engine: run(Path(folder), engine, ARMS[arm], asked.steps) for engine in ("native", "vllm")}
        found: dict[str, Any] = {"rounds": asked.steps}
        for name, key in REWARDS.items():
            values = {engine: [line[key] for line in lines] for engine, lines in rounds.items()}
            difference = [theirs - ours for ours, theirs in zip(values["native"], values["vllm"], strict=True)]
            means = {engine: interval(of) for engine, of in values.items()}
            found[name] = means | {"difference": interval(difference), "of_rounds": values}
            mean, half = found[name]["difference"]
            print(f"{arm}, {name}: native {100 * found[name]['native'][0]:.1f}, vllm {100 * found[name]['vllm'][0]:.1f}, "
                  f"difference {100 * mean:+.1f} ± {100 * half:.1f}")  # fmt: skip
        found["drift"] = {engine: fmean(line["policy/drift"] for line in lines) for engine, lines in rounds.items()}
        print(f"{arm}, policy/drift: " + ", ".join(f"{engine} {drift:.1e}" for engine, drift in found["drift"].items()))
        result[arm] = found
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
