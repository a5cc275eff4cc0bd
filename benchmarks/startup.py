"""How long a command takes until it does what it was typed for.

    python benchmarks/startup.py               5 rounds of each, one thread: a minute on a free core
    python benchmarks/startup.py --rounds 1    a quick look

    import      python -c "import percasym"
    --cfg job   python train.py --cfg job: the configuration, composed and shown
    first step  python train.py at scale=tiny, from the command to the first line of a step in metrics.jsonl; the evaluation before
                training is cut down to one sample and one token (benchmarks/evaluation.py measures a whole one)

A first, uncounted round fills the caches of compiled files. Processor seconds are the child's own, those of the clock are what one waits.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "startup.json"
TRAIN = [sys.executable, str(ROOT / "train.py")]
BRIEF = ["evaluation.num_samples=1", "evaluation.num_curve_samples=1", "evaluation.max_new_tokens=1"]


def seconds(command: list[str], until: Path | None = None) -> tuple[float, float]:
    """Of the processor and of the clock, until the command ends, or until `until` has the line of a step; it is then ended."""
    began = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        while until is not None and child.poll() is None:
            if until.exists() and "time/step_seconds" in until.read_text(encoding="utf-8"):
                child.kill()
                break
            time.sleep(0.01)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if until is None and child.returncode:
            raise SystemExit(f"{' '.join(command)} failed: {child.stderr.read().decode() if child.stderr else ''}")
    return usage.ru_utime + usage.ru_stime, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    found: dict[str, list[tuple[float, float]]] = {"import": [], "--cfg job": [], "first step": []}
    for _ in range(asked.rounds + 1):
        with tempfile.TemporaryDirectory() as folder:
            found["import"].append(seconds([sys.executable, "-c", "import percasym"]))
            found["--cfg job"].append(seconds([*TRAIN, "--cfg", "job"]))
            found["first step"].append(
                seconds([*TRAIN, f"hydra.run.dir={folder}/run", *BRIEF], until=Path(folder) / "run" / "metrics.jsonl")
            )
    results = {}
    for name, rounds in found.items():
        cpu, clock = ([one[i] for one in rounds[1:]] for i in (0, 1))
        results[name] = {"seconds": median(cpu), "lowest": min(cpu), "highest": max(cpu), "seconds_of_clock": median(clock)}
        print(f"{name:>10}: {median(cpu):6.2f} s of the processor ({min(cpu):.2f} to {max(cpu):.2f}), {median(clock):6.2f} s of the clock")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"rounds": asked.rounds, "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
