"""Rollouts of the native engine beside those of vLLM, float32 and bfloat16, in alternating rounds.

    make bench-vllm                                                                                    12 x 8 and 64 x 8
    PYTHONPATH=tests/vllm/stubs .venv-vllm/bin/python benchmarks/vllm/rates.py --prompts 64 --rounds 3

The packaged Qwen3-VL on Sudoku as `scale=tiny paradigm=rl` samples it: 12 prompts of 8 rollouts, or 64 of 8, each up to its own end. Each
engine and precision has a process of its own with one thread; the two engines take turns, first in float32, then in bfloat16. Both have
sampled once before the first round. A round samples new seeds, the same for all. Rates are of processor seconds, which other processes on
the machine disturb less than the clock; those of the clock are in the result.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
ENGINES, PRECISIONS = ("native", "vllm"), ("float32", "bfloat16")
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1", "VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "DS_ACCELERATOR": "cpu",
}  # fmt: skip


def serve(engine: str, precision: str, num_prompts: int, group_size: int) -> None:
    """Sample a round for each seed on a line of standard input; answer with one line of JSON."""
    import torch

    from percasym.config.resolve import composed
    from percasym.models.checkpoint import silence_transformers

    silence_transformers()
    words = ["paradigm=rl", f"rollout={engine}", f"rollout.precision={precision}", "scale=tiny", f"paradigm.batch_size={num_prompts}"]
    settings = composed(words, ROOT / "conf")
    torch.set_num_threads(1)
    from percasym.app.samplers import rollout_engine
    from percasym.types import SampleKey

    assert settings.rollout is not None
    task, rollouts, model = settings.task, rollout_engine(settings, settings.rollout), settings.family.load().eval()
    keys = [SampleKey(task=task.name, split="train_rl", seed=0, index=index) for index in range(num_prompts)]
    prompts = [task.sample(key).prompt for key in keys]
    began = time.process_time()
    rollouts.refresh(model)
    refresh = time.process_time() - began
    for line in sys.stdin:
        started = time.process_time(), time.perf_counter()
        groups = rollouts.generate(prompts, group_size=group_size, seed=int(line))
        cpu, wall = time.process_time() - started[0], time.perf_counter() - started[1]
        tokens = sum(len(rollout.completion.ids) for group in groups for rollout in group)
        print("\n" + json.dumps({"cpu": cpu, "wall": wall, "tokens": tokens, "refresh": refresh}), flush=True)


class Side:
    """One engine with one precision in its own process."""

    def __init__(self, name: str, asked: argparse.Namespace) -> None:
        engine, precision = name.split()
        words = [sys.executable, __file__, "--serve", engine, precision, "--prompts", str(asked.prompts), "--group", str(asked.group)]
        self.process = subprocess.Popen(words, env=os.environ | ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def sample(self, seed: int) -> dict[str, float]:
        """Sample once; the seconds and tokens."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{seed}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"A process ended with code {self.process.wait()}.")


def spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "least": min(values), "greatest": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--group", type=int, default=8, help="rollouts of each prompt")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", nargs=2, metavar=("ENGINE", "PRECISION"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(*asked.serve, asked.prompts, asked.group)
        return
    num, path = asked.prompts * asked.group, RESULTS / f"vllm_rates_{asked.prompts * asked.group}.json"
    result: dict[str, Any] = {"prompts": asked.prompts, "group": asked.group, "rounds": asked.rounds, "sides": {}}
    print(f"{asked.prompts} prompts x {asked.group}, one thread, {asked.rounds} rounds; rollouts a processor second: median (range)")
    for precision in PRECISIONS:
        for name, rounds in alternated(precision, asked).items():
            rates = spread([num / one["cpu"] for one in rounds])
            result["sides"][name] = {
                "rollouts_per_second": rates,
                "of_the_clock": spread([num / one["wall"] for one in rounds]),
                "tokens": median(one["tokens"] / num for one in rounds),
                "refresh_seconds": rounds[0]["refresh"],
            }
            print(f"{name:>16}: {rates['median']:.1f} ({rates['least']:.1f} to {rates['greatest']:.1f}), "
                  f"{result['sides'][name]['tokens']:.0f} tokens each", flush=True)  # fmt: skip
        RESULTS.mkdir(exist_ok=True)
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    medians = {name: side["rollouts_per_second"]["median"] for name, side in result["sides"].items()}
    best = {engine: max((rate, name) for name, rate in medians.items() if name.startswith(engine)) for engine in ENGINES}
    result["native_of_vllm"] = best["native"][0] / best["vllm"][0]
    print(f"{best['native'][1]} / {best['vllm'][1]}: {result['native_of_vllm']:.2f}")
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def alternated(precision: str, asked: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """The rounds of both engines in one precision; two processes at a time, for the memory of the machine."""
    sides = {f"{engine} {precision}": Side(f"{engine} {precision}", asked) for engine in ENGINES}
    found = dict[str, list[dict[str, float]]]()
    for side in sides.values():
        side.sample(1000)  # What is made once.
    for seed in range(asked.rounds):
        for name, side in sides.items():
            found.setdefault(name, []).append(side.sample(seed))
    for side in sides.values():
        assert side.process.stdin is not None
        side.process.stdin.close()
        side.process.wait()
    return found


if __name__ == "__main__":
    main()
