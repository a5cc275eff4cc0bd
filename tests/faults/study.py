"""Kill a study at random moments, give its one command again each time, and see that it ends with all cells done that can be.

    python tests/faults/study.py --cells 40 --kills 12 [--real]

SIGKILL meets the sweep, the cell at work, or both. Two of the cells always fail. The cells of tests/unit/launch/fake_train.py do nothing
but open and finish a run; those of --real train a tiny model for two steps. Exit code 0: the two are reported, all others are done,
one more repetition leaves these as they are, and no process or half-written file is left.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "faults")]

from attempts import alive, children  # noqa: E402, beside this script
from kills import SMALL, blank  # noqa: E402

from percasym.cli.main import main as percasym  # noqa: E402

FAILING = 2
STUDY = Path("multirun/killed")


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cells", type=int, default=40, help=f"{FAILING} of them fail")
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0, help="of the moments; processes take their time, so two calls do not kill alike")
    parser.add_argument("--seconds", type=float, default=4.0, help="from the first cell of a repetition to its kill, at most")
    parser.add_argument("--real", action="store_true", help="train a blank tiny model in each cell")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="study-") as place:
        os.chdir(place)
        os.environ |= {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "COLUMNS": "200"}
        command = [sys.executable, *asked(given.cells, real=given.real)]
        hits = disturb(command, given.kills, given.seconds, random.Random(given.seed))
        repetitions, wrong = settle(command, given.cells)
    told = ", ".join(f"{number} {hit}" for hit, number in hits.most_common())
    well = f"{given.cells - FAILING} done and {FAILING} reported, after {repetitions} more repetitions"
    print(f"{hits.total()} kills ({told}): {'; '.join(wrong) or well}.")
    return int(bool(wrong))


def asked(num_cells: int, *, real: bool) -> list[str]:
    """The study's one command; its configuration is written down here."""
    good, bad = (f"model.path={blank(Path('blank'))}", "model.path=./gone") if real else ("", "")
    lines = [
        f"balance=fixed balance.weight=0.2,0.3 {bad}",  # fake_train.py dies before its run begins at the one, amid it at the other.
        f"balance=fixed balance.weight=0.5 seed=range(0,{num_cells - FAILING}) {good}",
    ]
    yaml = Path("mine/experiment/killed.yaml")
    yaml.parent.mkdir(parents=True)
    yaml.write_text(f"# @package _global_\nstudy: killed\nhydra: {{mode: MULTIRUN, sweeper: {{cells: {lines}}}}}\n")
    script = ROOT / "train.py" if real else ROOT / "tests" / "unit" / "launch" / "fake_train.py"
    few = [*SMALL, "engine=torch", "paradigm.steps=2", "paradigm.batch_size=2", "paradigm.micro_batch_size=2"] if real else []
    return [str(script), "--config-dir=mine", "experiment=killed", *few]


def disturb(command: Sequence[str], kills: int, seconds: float, draw: random.Random) -> Counter[str]:
    """Give the command again and again until so many kills have met it; what they hit."""
    hits: Counter[str] = Counter()
    while hits.total() < kills:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sweep:
            while hits.total() < kills and waited(sweep, draw, seconds):
                hits[killed(sweep, draw)] += 1
                print(f"kill {hits.total()}: {len(list(STUDY.rglob('summary.json')))} cells are done", flush=True)
        if sweep.returncode >= 0:  # It ended by itself: there is nothing left to kill.
            break
    return hits


def waited(sweep: subprocess.Popen[bytes], draw: random.Random, seconds: float) -> bool:
    """Wait for a moment: mostly a while after a cell has begun, else a while after now. False when the sweep ended before."""
    patient = draw.random() > 0.2
    while patient and sweep.poll() is None and not children(sweep.pid):
        time.sleep(0.01)
    until = time.monotonic() + draw.uniform(0, seconds)
    while time.monotonic() < until and sweep.poll() is None:
        time.sleep(0.01)
    return sweep.poll() is None


def killed(sweep: subprocess.Popen[bytes], draw: random.Random) -> str:
    """Kill the sweep, its cell, or both; returns which. No cell outlives its sweep."""
    cells = children(sweep.pid)
    whom = draw.choice(["the sweep", "its cell", "both"] if cells else ["the sweep"])
    for pid in {"the sweep": [sweep.pid], "its cell": cells, "both": [sweep.pid, *cells]}[whom]:
        os.kill(pid, signal.SIGKILL)
    if whom != "its cell":
        sweep.wait()
        until = time.monotonic() + 5
        while any(alive(pid) for pid in cells):
            assert time.monotonic() < until, f"cells {cells} outlive their sweep"
            time.sleep(0.01)
    return whom


def settle(command: Sequence[str], num_cells: int) -> tuple[int, list[str]]:
    """Give the command until it does no more; how often that was, and what is not as it should be."""
    repetitions, before, done = 0, None, {}
    while done != before:
        before = done
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        done = {path: path.stat().st_mtime_ns for path in STUDY.rglob("summary.json")}
        repetitions += 1
    with redirect_stdout(StringIO()) as status:
        percasym(["status", str(STUDY)])
    counted = f"{num_cells - FAILING} done, {FAILING} failed"
    wrong = [] if ended.returncode == 1 else [f"the study ended with exit code {ended.returncode}: {ended.stderr}"]
    wrong += [] if len(done) == num_cells - FAILING else [f"{len(done)} cells have a summary"]
    wrong += [] if counted in status.getvalue() else [f"percasym status does not say {counted!r}: {status.getvalue()}"]
    reported = len(re.findall(r"seed\d+ failed: ", ended.stderr))
    wrong += [] if reported == FAILING else [f"{reported} failures are reported: {ended.stderr}"]
    left = [str(path) for path in STUDY.rglob(".*.partial")]
    return repetitions, wrong + [f"{name} is left" for name in left]


if __name__ == "__main__":
    sys.exit(main())
