"""The asymmetry itself: how seeing and thinking grow over training, and how much each has gained in the end."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from percasym.report.curves import ACCURACIES, INK, PERCEPTION, REASONING, measured_on
from percasym.report.study import Cell, CellGroup
from percasym.report.style import canvas, dress, is_known, percent_axis, reach

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_PANELS, COLUMNS = 16, 3
"""Cells with learning curves of their own (a panel takes a quarter of a second to draw), and panels beside each other."""
MAX_BARS = 12
"""Cells in one panel of bars."""
BARS = (("perception", "perception a_p", PERCEPTION, -0.19), ("reasoning", "reasoning a_r", REASONING, 0.19))


def learning_curves(groups: Sequence[CellGroup]) -> Figure | None:
    """a, a_p and a_r over training, a panel for each of the first `MAX_PANELS` cells; nothing where no run was evaluated twice."""
    chosen = [(group, cell) for group in groups for cell in group.cells if len(_mean_over_seeds(cell, ACCURACIES[0][0])) > 1][:MAX_PANELS]
    if not chosen:
        return None
    with canvas(len(chosen), panel=(3.1, 2.5), columns=COLUMNS) as (figure, panels):
        for place, (axes, (group, cell)) in enumerate(zip(panels, chosen, strict=True)):
            for key, name, colour, marker in ACCURACIES:
                for run in cell.runs[: len(cell.runs) if len(cell.runs) > 1 else 0]:
                    one = run.series(key)
                    axes.plot(one.steps, one.values, color=colour, linewidth=0.7, alpha=0.45)
                mean = _mean_over_seeds(cell, key)
                axes.plot([*mean], [*mean.values()], color=colour, marker=marker, markersize=4.5, linewidth=2, label=name, clip_on=False)
            percent_axis(axes, "y")
            dress(axes, f"{group.title}\n{cell.label}" if len(groups) > 1 else cell.label)
            axes.tick_params(labelleft=place % COLUMNS == 0)  # One scale for all.
        on = measured_on(run for _, cell in chosen for run in cell.runs)
        figure.supxlabel(f"optimizer steps ({on})", fontsize=11)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False)
        return figure


def gap_bars(groups: Sequence[CellGroup]) -> Figure | None:
    """Gain in perception beside gain in reasoning, a pair of bars for each cell; nothing where no gain was measured."""
    chosen = []
    for group in groups:
        gains = [group.estimates(metric, "gain") for metric, *_ in BARS]
        known = [i for i in range(len(group.cells)) if is_known(*(gain[i] for gain in gains))][:MAX_BARS]
        if known:
            chosen.append((group, known, gains))
    if not chosen:
        return None
    with canvas(len(chosen), panel=(4.6, 3.4)) as (figure, panels):
        for axes, (group, known, gains) in zip(panels, chosen, strict=True):
            for (_, name, colour, shift), gain in zip(BARS, gains, strict=True):
                shown = [gain[i] for i in known]
                places = [place + shift for place in range(len(known))]
                axes.bar(places, [one.mean for one in shown], width=0.36, color=colour, label=name)
                axes.errorbar(places, [one.mean for one in shown], yerr=reach(shown), linestyle="", color="#888888", linewidth=1.2)
            axes.axhline(0, color=INK, linewidth=0.8)
            axes.set_xticks(range(len(known)), [group.cells[i].label for i in known], rotation=35 if len(known) > 4 else 0)
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:+.1f}")
            axes.set_ylabel("gain in points")
            dress(axes, group.title)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
        return figure


def _mean_over_seeds(cell: Cell, key: str) -> dict[int, float]:
    """Step -> mean, at the steps that every seed has."""
    series = [dict(zip(one.steps, one.values, strict=True)) for run in cell.runs if (one := run.series(key))]
    steps = sorted(set.intersection(*map(set, series))) if series else []
    return {step: fmean(one[step] for one in series) for step in steps}
