"""What reinforcement learning paid for: the advantage of a rollout by what it saw and whether its answer was right.

Only the outcome counts at w = 0, so that a rollout which saw wrongly and was lucky is praised and one that saw well and slipped is blamed;
the weight of perception moves both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from percasym.report.curves import INK
from percasym.report.dynamics import shade
from percasym.report.study import Cell, CellGroup
from percasym.report.style import canvas, dress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Verdict = tuple[bool, bool]
"""Did a rollout state p*, and was its answer right?"""
VERDICTS: Mapping[Verdict, str] = {
    (True, True): "saw well,\nright",
    (True, False): "saw well,\nwrong",
    (False, True): "saw wrongly,\nright",
    (False, False): "saw wrongly,\nwrong",
}
MAX_CELLS = 8
"""With bars in one panel."""
MAX_LEVEL = 3
"""Cells whose bars are wide enough for a number that lies flat."""
GRADES, ADVANTAGE = '"grades": ', '"advantage": '
_DECODER = json.JSONDecoder()


def credit(groups: Sequence[CellGroup]) -> Figure | None:
    """Mean advantage of each kind of rollout, a bar for each cell; nothing where no run recorded advantages.

    Over all recorded rollouts of prompts that taught something (a group of equal rewards has advantages of 0), of all seeds.
    """
    chosen = [(group, [(cell, found) for cell in group.cells if (found := advantages(cell))][:MAX_CELLS]) for group in groups]
    chosen = [(group, cells) for group, cells in chosen if cells]
    if not chosen:
        return None
    with canvas(len(chosen), panel=(7.2, 3.4), columns=1) as (figure, panels):
        for axes, (group, cells) in zip(panels, chosen, strict=True):
            width = 0.8 / len(cells)
            for place, (cell, found) in enumerate(cells):
                kinds = [(at, found[kind]) for at, kind in enumerate(VERDICTS) if kind in found]
                left = [at + width * (place - (len(cells) - 1) / 2) for at, _ in kinds]
                axes.bar(left, [fmean(values) for _, values in kinds], width * 0.9, color=shade(place, len(cells)), label=cell.label)
                for x, (_, values) in zip(left, kinds, strict=True):
                    mean = fmean(values)
                    below = mean < 0
                    turn = 90 if len(cells) > MAX_LEVEL else 0
                    axes.annotate(f"{len(values):,}", (x, mean), xytext=(0, -3 if below else 3), textcoords="offset points", fontsize=8,
                                  ha="center", va="top" if below else "bottom", rotation=turn)  # fmt: skip
            axes.axhline(0, color=INK, linewidth=0.8)
            axes.set_xticks(range(len(VERDICTS)), list(VERDICTS.values()))
            axes.margins(y=0.2)  # Room for the numbers.
            axes.yaxis.set_major_formatter("{x:+.2f}")  # Of one width: the layout is made before the ticks are chosen.
            axes.set_ylabel("mean advantage")
            axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False, fontsize=9)
            dress(axes, group.title)
        return figure


def advantages(cell: Cell) -> dict[Verdict, list[float]]:
    """The advantages that are not 0 of all recorded rollouts of a cell, by verdict."""
    found: dict[Verdict, list[float]] = {}
    for run in cell.runs:
        for file in sorted(run.path.glob("samples/rollouts_*.jsonl")):
            for verdict, advantage in _paid(file):
                if advantage:
                    found.setdefault(verdict, []).append(advantage)
    return found


def _paid(file: Path) -> Iterator[tuple[Verdict, float]]:
    """Verdict and advantage of each rollout that has one; ids and texts, nine tenths of a file, are passed over.

    A rollout's grades are written before its advantage, and inside a text the quotes of both names would be escaped.
    """
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            at = 0
            while (start := line.find(GRADES, at)) >= 0:
                grades, at = _DECODER.raw_decode(line, start + len(GRADES))
                advantage, at = _DECODER.raw_decode(line, line.index(ADVANTAGE, at) + len(ADVANTAGE))
                if advantage is not None:
                    yield (grades["perception"], grades["outcome"]), advantage
