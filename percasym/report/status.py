"""`percasym status`: a table of the runs of a study, cells down and seeds across, with the time left or the reason of a failure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from percasym.report.load import RunRecord
from percasym.report.study import seed_of
from percasym.runs.progress import duration
from percasym.runs.study import Planned

RECENT_STEPS = 20
"""Steps whose mean duration predicts the rest."""
SILENT_SECONDS = 900.0
"""A run that wrote nothing for this long may have been killed: evaluations of the tiny models take two minutes."""
MAX_SEEDS = 32
"""Columns of the grid; with more seeds, each run is a row: a table of a thousand cells with a seed each would have a million places."""
NAME_WIDTH = 40
"""Width up to which a cell's name is not wrapped; the columns of the seeds are wrapped before it."""
STYLES = {"done": "green", "running": "", "silent": "yellow", "interrupted": "yellow", "failed": "red", "not begun": "dim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """The state of one run."""

    state: str
    """A key of `STYLES`."""
    text: str


def run_state(run: RunRecord, now: float) -> RunState:
    """The state of a run at `now`, in seconds since the epoch.

    The time left covers the training steps only, at the mean of the last `RECENT_STEPS`; evaluations add to it.
    """
    status = str(run.meta["status"])
    if status == "done":
        return RunState(state="done", text=f"done in {duration(run.meta['seconds'])}")
    seconds = run.series("time/step_seconds")
    step, steps = max(seconds.steps, default=0), int((run.config.get("paradigm") or {}).get("steps", 0))
    progress = f"step {step}/{steps}"
    if status != "running":
        reason = f": {run.meta['reason']}" if run.meta.get("reason") else ""
        return RunState(state=status, text=f"{status} at {progress}{reason}")
    written = max(path.stat().st_mtime for name in ("meta.json", "metrics.jsonl") if (path := run.path / name).exists())
    if now - written > SILENT_SECONDS:
        return RunState(state="silent", text=f"{progress}, silent for {duration(now - written)}")
    recent = [value for value in seconds.values[-RECENT_STEPS:] if math.isfinite(value)]
    left = f", {duration((steps - step) * fmean(recent))} of training left" if recent and step < steps else ""
    return RunState(state="running", text=f"running, {progress}{left}")


def planned_state(cell: Planned) -> RunState:
    """The state of a cell that has no run directory yet."""
    if cell.reason:
        return RunState(state="failed", text=f"failed before it began: {cell.reason}")
    return RunState(state="not begun", text="not begun")


def status(runs: Sequence[RunRecord], planned: Iterable[Planned], now: float) -> Table:
    """The grid of a study, with the number of runs in each state below it. `planned`: the cells of its sweeps.

    A dash is a seed that is not in any sweep of the cell.
    """
    states = {(run.cell, seed_of(run)): run_state(run, now) for run in runs}
    for cell in planned:
        states.setdefault(cell_and_seed(cell.name), planned_state(cell))
    seeds = sorted({seed for _, seed in states})
    counts = Counter(one.state for one in states.values())
    caption = ", ".join(f"{counts[state]} {state}" for state in dict.fromkeys([*STYLES, *counts]) if state in counts)
    grid = Table(box=SIMPLE_HEAD, caption=caption, caption_justify="left")
    if len(seeds) > MAX_SEEDS:
        grid.add_column("run", overflow="fold")
        grid.add_column("state", overflow="fold")
        for (cell_name, seed), one in states.items():
            grid.add_row(f"{cell_name}/seed{seed}", _text(one))
        return grid
    longest = max((len(name) for name, _ in states), default=0)
    grid.add_column("cell", overflow="fold", min_width=min(longest, NAME_WIDTH))
    for seed in seeds:
        grid.add_column(f"seed {seed}", overflow="fold")
    for cell_name in dict.fromkeys(name for name, _ in states):
        grid.add_row(cell_name, *(_text(states.get((cell_name, seed))) for seed in seeds))
    return grid


def cell_and_seed(name: str) -> tuple[str, int]:
    """Cell and seed of a directory of a study.

    >>> cell_and_seed("sudoku-qwen3vl-sft-none/seed3")
    ('sudoku-qwen3vl-sft-none', 3)
    """
    seed = re.fullmatch(r"seed(\d{1,18})", Path(name).name)
    return (Path(name).parent.name, int(seed[1])) if seed else (Path(name).name, 0)


def _text(one: RunState | None) -> Text:
    return Text("-") if one is None else Text(one.text, style=STYLES.get(one.state, ""))
