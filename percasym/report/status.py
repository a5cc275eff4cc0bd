"""Where a study stands: its cells down, its seeds across; done, how far and for how long yet, or why not."""

from __future__ import annotations

import math
import re
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
"""Steps whose mean duration foretells the rest."""
SILENT_SECONDS = 900.0
"""A run that wrote nothing for so long may have been killed: evaluations of the tiny models take two minutes."""
NAME_WIDTH = 40
"""Letters of a cell's name that are not broken for want of room; what is said of its seeds is, first."""
STYLES = {"done": "green", "running": "", "silent": "yellow", "interrupted": "yellow", "failed": "red", "not begun": "dim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What became of one run."""

    state: str
    """A key of `STYLES`."""
    text: str


def standing(run: RunRecord, now: float) -> Standing:
    """The state of a run at `now`, in seconds since the epoch.

    The time left is that of the training steps alone, at the mean of the last `RECENT_STEPS`; evaluations come on top.
    """
    status = str(run.meta["status"])
    if status == "done":
        return Standing(state="done", text=f"done in {duration(run.meta['seconds'])}")
    seconds = run.series("time/step_seconds")
    step, steps = max(seconds.steps, default=0), int((run.config.get("paradigm") or {}).get("steps", 0))
    place = f"step {step}/{steps}"
    if status != "running":
        reason = f": {run.meta['reason']}" if run.meta.get("reason") else ""
        return Standing(state=status, text=f"{status} at {place}{reason}")
    written = max(path.stat().st_mtime for name in ("meta.json", "metrics.jsonl") if (path := run.path / name).exists())
    if now - written > SILENT_SECONDS:
        return Standing(state="silent", text=f"{place}, silent for {duration(now - written)}")
    recent = [value for value in seconds.values[-RECENT_STEPS:] if math.isfinite(value)]
    left = f", {duration((steps - step) * fmean(recent))} of training left" if recent and step < steps else ""
    return Standing(state="running", text=f"running, {place}{left}")


def unheard_of(cell: Planned) -> Standing:
    """The state of a cell that has no run directory yet."""
    return (
        Standing(state="failed", text=f"failed before it began: {cell.reason}")
        if cell.reason
        else Standing(state="not begun", text="not begun")
    )


def status(runs: Sequence[RunRecord], planned: Iterable[Planned], now: float) -> Table:
    """The grid of a study with the number of runs in each state below; `planned` is what its sweeps asked for.

    A dash is a seed that no sweep asked of a cell.
    """
    stands = {(run.cell, seed_of(run)): standing(run, now) for run in runs}
    for cell in planned:
        stands.setdefault(place(cell.name), unheard_of(cell))
    seeds = sorted({seed for _, seed in stands})
    states = [stand.state for stand in stands.values()]
    counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys([*STYLES, *states]) if state in states)
    grid = Table(box=SIMPLE_HEAD, caption=counted, caption_justify="left")
    longest = max((len(name) for name, _ in stands), default=0)
    grid.add_column("cell", overflow="fold", min_width=min(longest, NAME_WIDTH))
    for seed in seeds:
        grid.add_column(f"seed {seed}", overflow="fold")
    for cell_name in dict.fromkeys(name for name, _ in stands):
        grid.add_row(cell_name, *(_text(stands.get((cell_name, seed))) for seed in seeds))
    return grid


def place(name: str) -> tuple[str, int]:
    """Cell and seed that a directory of a study stands for.

    >>> place("sudoku-qwen3vl-sft-none/seed3")
    ('sudoku-qwen3vl-sft-none', 3)
    """
    seed = re.fullmatch(r"seed(\d+)", Path(name).name)
    return (Path(name).parent.name, int(seed[1])) if seed else (Path(name).name, 0)


def _text(stand: Standing | None) -> Text:
    return Text("-") if stand is None else Text(stand.text, style=STYLES.get(stand.state, ""))
