"""Run directories with chosen numbers, written without training."""

import io
import math
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from percasym.report.load import METRICS
from percasym.runs.rundir import RunDirectory
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
    run = RunDirectory.open(path, {"seed": int(path.name[-1]), "balance": {"weight": 0.5}})
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


TRUTH = "1034\n0021\n3400\n0002"
Verdict = tuple[bool, bool | None]
"""Perception, faithful."""
EACH_KIND: Sequence[Verdict] = ((True, True), (False, True), (True, False), (False, False), (False, None))
STRATEGIES = {"none": ("none.NoBalance", 0.03), "ngdiff": ("ngdiff.NGDiff", None)}


def png() -> str:
    """A picture of one grey level, as a test record holds it."""
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "#bbbbbb").save(buffer, format="PNG")
    return b64encode(buffer.getvalue()).decode("ascii")


def record(index: int, verdict: Verdict, stated: str | None = None, reasoning: str = "r1c2 is 2.") -> dict[str, Any]:
    """A test record; a percept that is wrong has another digit in its last cell but one."""
    perception, faithful = verdict
    percept = stated or (TRUTH if perception else None if faithful is None else TRUTH[:-2] + "32")
    response = {"ids": [1, 2], "labels": [0, 1], "percept": percept, "reasoning": reasoning, "answer": "x", "finished": True}
    grades = {name: bool(faithful) and perception for name in METRICS} | {
        "perception": perception,
        "perception_graded": 0.5,
        "faithful": faithful,
    }
    return {
        "key": {"task": "sudoku", "split": "test", "seed": 0, "index": index},
        "question": "Solve the puzzle.",
        "truth": TRUTH,
        "puzzle": f"puzzle {index}",
        "solution": "1234",
        "image": png(),
        "responses": dict.fromkeys(("image", "prefix", "text"), response),
        "faults": {"image": [], "prefix": [], "text": []},
        "grades": grades,
    }


Graded = Sequence[tuple[Any, Any, Any]]
"""a, a_p and a_r of each sample."""


def regraded(records: Sequence[dict[str, Any]], grades: Graded, puzzles: Sequence[str] | None) -> list[dict[str, Any]]:
    """The same samples with these grades, and of these puzzles."""
    named = [dict(zip(("end_to_end", "perception", "reasoning"), each, strict=True)) for each in grades]
    own = puzzles or [record["puzzle"] for record in records]
    return [r | {"grades": r["grades"] | g, "puzzle": p} for r, g, p in zip(records, named, own, strict=True)]


def write_cell_run(
    study: Path, balance: str, seed: int, after: float, *, verdicts: Sequence[Verdict] = EACH_KIND, steps: int = 4,
    grades: tuple[Graded, Graded] | None = None, puzzles: Sequence[str] | None = None, data: str | None = None, **more: Any
) -> Path:  # fmt: skip
    """A finished run of `balance` (none, ngdiff, or a weight such as 0.5) whose three metrics are all `after`.

    `grades` are those of the samples before and after training; without them only the samples after training are kept.
    `data` is the fingerprint of its collected rows.
    """
    verdicts = verdicts if grades is None else [(True, True)] * len(grades[1])
    target, weight = STRATEGIES.get(balance, ("fixed.Fixed", float(balance) if balance[0].isdigit() else None))
    shown = balance if balance in STRATEGIES else f"fixed{balance}"
    path = study / f"sudoku-qwen3vl-sft-{shown}" / f"seed{seed}"
    groups = {
        "task": {"_target_": "percasym.tasks.sudoku.task.Sudoku"},
        "model": {"_target_": "percasym.models.qwen3vl.Qwen3VL"},
        "paradigm": {"_target_": "percasym.config.paradigm.Sft", "steps": steps},
        "balance": {"_target_": f"percasym.balance.{target}"},
    }
    config = {"seed": seed, "study": study.name} | groups
    run = RunDirectory.open(path, config, about={"data": {"fingerprint": data}} if data else {})
    for step in (0, steps):
        run.log(step, {f"eval/{name}": 0.1 + (after - 0.1) * (step > 0) for name in METRICS} | {"eval/num_samples": len(verdicts)})
    for step in range(1, steps + 1):
        moved = {"balance/weight": weight if weight is not None else 0.2 + 0.1 * step, "share/loss": 0.1, "time/step_seconds": 2.0}
        run.log(step, moved | {"grad/perception": 2.0, "grad/reasoning": 1.0})
    records = [record(index, verdict, **more) for index, verdict in enumerate(verdicts)]
    if grades is None:
        run.samples("test", steps, records)
    for step, graded in zip((0, steps), grades or (), strict=False):
        run.samples("test", step, regraded(records[: len(graded)], graded, puzzles))
    numbers = {
        part: {name: Estimate(mean=mean, ci95=(mean - 0.05, mean + 0.05), n=len(verdicts)) for name in METRICS}
        for part, mean in (("before", 0.1), ("after", after), ("gain", after - 0.1))
    }
    run.finish(numbers)
    return path


@pytest.fixture(scope="session")
def cell_run() -> Callable[..., Path]:
    """`write_cell_run`: a finished run of a study, with known numbers and texts."""
    return write_cell_run
