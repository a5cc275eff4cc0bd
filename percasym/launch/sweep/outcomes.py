"""What became of each cell of a study, as the table at the end of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

State = Literal["done", "skipped", "failed", "interrupted", "not begun"]
STYLES: Mapping[State, str] = {"done": "green", "skipped": "dim", "failed": "red", "interrupted": "yellow", "not begun": "dim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a cell."""

    state: State
    reason: str = ""
    """Why it failed, in a sentence."""


def on_disk(path: Path) -> Outcome:
    """What the run directory says of a cell that was not heard of: its study was interrupted, or its launcher broke."""
    file = path / "meta.json"
    meta = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    match meta.get("status"):
        case "done":
            return Outcome(state="done")
        case "failed":
            return Outcome(state="failed", reason=meta.get("reason", ""))
        case None:
            return Outcome(state="not begun")
        case _:  # `running` too: whatever ended it left it no time to say so.
            return Outcome(state="interrupted")


def told(folder: Path, outcomes: Mapping[Path, Outcome]) -> Table:
    """A row for each cell of the study in `folder`, with the number in each state below."""
    rows = {path.relative_to(folder): outcome for path, outcome in outcomes.items() if path.is_relative_to(folder)}
    states = [outcome.state for outcome in rows.values()]
    counted = ", ".join(f"{states.count(state)} {state}" for state in STYLES if state in states)
    table = Table(box=SIMPLE_HEAD, title=str(folder), caption=counted, title_justify="left", caption_justify="left")
    table.add_column("cell", overflow="fold")
    table.add_column("what became of it", overflow="fold")
    for name, outcome in rows.items():
        said = "skipped, for it was done" if outcome.state == "skipped" else outcome.state
        table.add_row(str(name), Text(f"{said}: {outcome.reason}" if outcome.reason else said, style=STYLES[outcome.state]))
    return table
