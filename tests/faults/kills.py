"""Kill a run at random moments, give its command again each time, and compare what is left with a run that nobody disturbed.

    python tests/faults/kills.py --kills 30 --paradigm sft --ranks 1 --engine torch

SIGKILL leaves a process no time for anything. Most kills wait until a checkpoint, or the final model, is being written. A run that
ends between two kills is compared and begun again. Of two ranks, a rank, the launcher, or all are killed. Exit code 0: the final
parameters are the same bits, and metrics, samples and files are those of the undisturbed run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "faults")]

from attempts import Forked, Started  # noqa: E402, beside this script

RECIPES = {
    "sft": ["paradigm=sft", "balance=ngdiff", "paradigm.batch_size=4", "paradigm.micro_batch_size=2"],
    "rl": [
        "paradigm=rl", "balance=fixed", "balance.weight=0.3", "paradigm.batch_size=2", "paradigm.group_size=2",
        "paradigm.micro_batch_size=2", "paradigm.diagnose_every=0", "paradigm.record_every=2", "rollout.max_new_tokens=12",
    ],
}  # fmt: skip
SMALL = ["scale=smoke", "paradigm.eval_every=2", "paradigm.save_every=1", "evaluation.num_samples=2", "evaluation.num_curve_samples=1",
         "evaluation.max_new_tokens=4", "evaluation.batch_size=2"]  # fmt: skip


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--paradigm", choices=RECIPES, default="sft")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--engine", default="torch", help="torch, deepspeed, or with more words: 'deepspeed engine.zero_stage=3'")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0, help="of the moments; processes take their time, so two calls do not kill alike")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder, removed afterwards)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        folder = (given.folder or Path(place)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        size = [f"paradigm.steps={given.steps}", f"model.path={blank(folder / 'blank')}", f"launch.nproc={given.ranks}"]
        words = [*SMALL, *RECIPES[given.paradigm], *size, *f"engine={given.engine}".split()]
        return disturb(Forked(words) if given.ranks == 1 else Started(words), given.kills, random.Random(given.seed))


def disturb(attempt: Forked | Started, kills: int, draw: random.Random) -> int:
    """Kill a run this often and tell how it went."""
    whole, run = Path("whole"), Path("run")
    began = time.monotonic()
    attempt.begin(whole)
    if not attempt.finish():
        print(f"The undisturbed run did not end well:\n{Path('whole.log').read_text()}")
        return 1
    seconds, wrong = time.monotonic() - began, []
    hits: Counter[str] = Counter()
    while not wrong:
        attempt.begin(run)
        if hits.total() < kills and (hit := attempt.kill(run, draw, seconds)):
            hits[hit] += 1
            found = sorted(path.name for path in run.glob("checkpoints/*"))
            print(f"kill {hits.total()}: {hit}; left {', '.join(found) or 'no checkpoint'}", flush=True)
            continue
        wrong = differences(whole, run) if attempt.finish() else [f"the run did not end well:\n{Path('run.log').read_text()}"]
        if hits.total() == kills:
            break
        shutil.rmtree(run)
    told = ", ".join(f"{number} {hit}" for hit, number in hits.most_common())
    print(f"{hits.total()} kills ({told}): {'; '.join(wrong) or 'the same bits, lines and files as undisturbed'}.")
    return int(bool(wrong))


def differences(whole: Path, run: Path) -> list[str]:
    """What a disturbed run has otherwise than the undisturbed one."""
    left, right = ({path.relative_to(root) for path in root.rglob("*")} - {Path("failure.log")} for root in (whole, run))
    wrong = [f"one has {', '.join(map(str, sorted(left ^ right)))}, and the other has not"] if left != right else []
    kept = [name for name in sorted(left & right) if name.parts[0] in ("final", "samples") and (whole / name).is_file()]
    wrong += [f"{name} differs" for name in kept if (whole / name).read_bytes() != (run / name).read_bytes()]
    wrong += [] if curve(whole) == curve(run) else ["metrics.jsonl differs"]
    return wrong + ([] if summary(whole) == summary(run) else ["summary.json differs"])


def curve(run: Path) -> list[dict[str, object]]:
    """metrics.jsonl without what a clock wrote."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "second" not in key} for line in lines]


def summary(run: Path) -> dict[str, object]:
    """summary.json without what a clock wrote."""
    return json.loads((run / "summary.json").read_text()) | {"seconds": None}


def blank(directory: Path) -> Path:
    """Make a checkpoint of the real class with random weights."""
    import torch

    from percasym.models.architecture import write_blank
    from percasym.models.checkpoint import silence_transformers
    from percasym.tasks.sudoku.task import Sudoku
    from percasym.types import SampleKey

    task = Sudoku(verbosity=0)
    samples = [task.sample(SampleKey(task="sudoku", split="base", seed=0, index=index)) for index in range(20)]
    silence_transformers()
    torch.manual_seed(0)
    write_blank(directory, [part for s in samples for part in (s.prompt.question, s.demonstration.perception, s.demonstration.reasoning)])
    return directory


if __name__ == "__main__":
    sys.exit(main())
