"""A run that was never trained: its numbers are chosen so that each report can be checked by eye."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from percasym.runs.rundir import Run
from percasym.types import Estimate

STEPS = 300
NAMES = ("end_to_end", "perception", "perception_graded", "reasoning", "reasoning_text", "faithful")


def estimate(mean: float, reach: float = 0.07, n: int = 200) -> Estimate:
    return Estimate(mean=mean, ci95=(max(-1.0, mean - reach), mean + reach), n=n)


def summary(after: float = 0.382) -> dict[str, object]:
    before = {name: estimate(0.04 + 0.01 * i) for i, name in enumerate(NAMES)}
    later = {name: estimate(after + 0.05 * i) for i, name in enumerate(NAMES)}
    gain = {name: estimate(later[name].mean - before[name].mean) for name in NAMES}
    share = {"tokens": 0.029, "loss": 0.013, "gradient": math.nan}
    return {"before": before, "after": later, "gain": gain, "share": share, "seconds": {"setup": 8.2, "train": 301.0, "evaluate": 95.5}}


def write_run(path: Path, *, after: float = 0.382, finished: bool = True) -> Path:
    run = Run.open(path, {"seed": int(path.name[-1]), "balance": {"weight": 0.5}})
    for step in range(STEPS + 1):
        if step % 60 == 0:
            done = step / STEPS
            for i, name in enumerate(NAMES):
                mean = min(1.0, (0.04 + 0.01 * i) * (1 - done) + (after + 0.05 * i) * done)
                key = f"eval/{name}"
                run.log(step, {key: mean, f"{key}/lo": max(0.0, mean - 0.06), f"{key}/hi": min(1.0, mean + 0.07)})
        if step:
            wobble = 1 + 0.1 * math.sin(step * 2.3)
            losses = {"loss/perception": 1.2 * math.exp(-step / 90) * wobble, "loss/reasoning": 0.7 * math.exp(-step / 60) * wobble + 0.05}
            run.log(step, losses | {"balance/weight": 0.88 - 0.44 * step / STEPS, "grad/cosine": math.nan if step > 1 else 0.1})
    if finished:
        run.finish(summary(after))
    return path


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return write_run(tmp_path / "study" / "sudoku-qwen3vl-sft-ngdiff" / "seed0")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run at a path below the test's folder."""
    return lambda name, **options: write_run(tmp_path / name, **options)
