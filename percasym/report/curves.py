"""curves.png of one run: the three metrics over training, the losses (in RL the rewards), and the perception weight."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from percasym.config.files import json_lines
from percasym.report.load import RunRecord, Series, load_run
from percasym.report.style import ACCURACIES, DPI, INK, PERCEPTION, REASONING, WEIGHT, dress, look
from percasym.runs.records import TEST, list_samples, replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUM_SAMPLES = "eval/num_samples"
LOSSES = (("loss/perception", "loss of perception", PERCEPTION), ("loss/reasoning", "loss of reasoning", REASONING))
REWARDS = (("reward/perception/mean", "perception", PERCEPTION), ("reward/outcome/mean", "outcome", INK))
WIDTH_INCHES, HEIGHT_INCHES = 9.0, 7.5  # Shown 900 pixels wide, 11 points are 15 pixels.
LABEL_GAP_PIXELS = 30  # Minimum distance between two labels: 11 points at 150 dots an inch are 23 pixels.

Line = tuple[str, str, str, Series]
"""Name, colour, format of the last value, and points of a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One accuracy over training, measured on one number of test samples."""

    values: Mapping[int, float]
    """By step; empty where no two points are known to be measured alike."""
    num_samples: int | None
    """Of each point; None where the run recorded no number."""
    others: Mapping[int, float]
    """Points on other numbers of samples, or with an unknown number: not joined to the curve, for they are not comparable with it."""

    def __bool__(self) -> bool:
        return bool(self.values)

    @property
    def about(self) -> str:
        """The number of samples in words."""
        return "n not recorded" if self.num_samples is None else f"n = {self.num_samples} test samples"


def curve_of(run: RunRecord, key: str) -> Curve:
    """The points of `key` that share the most frequent number of test samples.

    That number is `eval/num_samples`, which older runs lack; there it is the number of lines of samples/test_<step>.jsonl. Sampled answers
    are always of the first `evaluation.num_sampled` test samples.
    """
    series = run.series(key)
    known = {step: value for step, value in zip(series.steps, series.values, strict=True) if math.isfinite(value)}
    sampled = int((run.config.get("evaluation") or {}).get("num_sampled", 0)) if key.startswith("eval/sampled_") else 0
    counts = dict.fromkeys(known, sampled) if sampled else _sample_counts(run, known)
    numbers = Counter(counts[step] for step in known if step in counts)
    if not numbers:
        return Curve(values={}, num_samples=None, others=known)
    most = max(numbers.values())
    usual = min(number for number, times in numbers.items() if times == most)
    same = {step: value for step, value in known.items() if counts.get(step) == usual}
    return Curve(values=same, num_samples=usual, others={step: value for step, value in known.items() if step not in same})


def _sample_counts(run: RunRecord, steps: Iterable[int]) -> dict[int, int]:
    """Step -> test samples of its evaluation, where known."""
    recorded = run.series(NUM_SAMPLES)
    counts = {step: int(number) for step, number in zip(recorded.steps, recorded.values, strict=True) if math.isfinite(number)}
    files = {file.step: file.path for file in list_samples(run.path, TEST)}
    for step in steps:
        if step not in counts and step in files:
            with suppress(ValueError):  # A file that is no evaluation counts nothing.
                counts[step] = sum(1 for _ in json_lines(files[step], links=False))
    return counts


def curves(run_dir: Path) -> Path:
    """Draw the curves of the run at `run_dir` into its curves.png and return that path.

    Raises ValueError when the run has logged nothing yet.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    run = load_run(run_dir)
    if not run.metrics:
        raise ValueError(f"{run_dir} has no metrics yet, so there is nothing to draw.")
    with rc_context(look()):
        figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        upper, middle, lower = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1.6, 1))
        figure.suptitle(run.cell, x=0.01, ha="left", fontweight="bold")
        panels = {upper: _accuracies(upper, run), middle: _objective(middle, run), lower: _weight(lower, run)}
        lower.set_xlabel("optimizer steps")
        figure.draw_without_rendering()  # The distance between labels is known after the layout only.
        for axes, lines in panels.items():
            _label(axes, lines)
        path = run_dir / "curves.png"
        with replacing(path) as partial:
            figure.savefig(partial, format="png")
    return path


def spread(heights: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places for labels of lines that end at `heights`: at least `gap` apart, in the same order, within [low, high].

    >>> [round(y, 6) for y in spread([0.50, 0.52, 0.1], gap=0.06, low=0.0, high=1.0)]
    [0.5, 0.56, 0.1]
    """
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = [min(max(heights[i], low), high) for i in order]
    for below, above in pairwise(range(len(placed))):
        placed[above] = max(placed[above], placed[below] + gap)
    if placed and placed[-1] > high:
        placed[-1] = high
        for above, below in pairwise(reversed(range(len(placed)))):
            placed[below] = min(placed[below], placed[above] - gap)
    return [place for _, place in sorted(zip(order, placed, strict=True))]


def _accuracies(axes: Axes, run: RunRecord) -> list[Line]:
    """A line through the points that were measured on the same samples; hollow markers for the others."""
    lines: list[Line] = []
    about = ""
    for key, name, colour, marker in ACCURACIES:
        curve = curve_of(run, key)
        series, low, high = (_only(run.series(key + end), curve.values) for end in ("", "/lo", "/hi"))
        axes.plot([*curve.others], [*curve.others.values()], color=colour, marker=marker, markersize=6, linestyle="", fillstyle="none")
        if curve:
            axes.plot(series.steps, series.values, color=colour, marker=marker, markersize=6, linewidth=2, clip_on=False, zorder=3)
            if low.steps == high.steps:
                axes.fill_between(low.steps, low.values, high.values, color=colour, alpha=0.13, linewidth=0)
            about = curve.about
        if curve or curve.others:
            end = series if curve else Series(steps=[*curve.others], values=[*curve.others.values()])
            lines.append((name, colour, "{:.0%}", end))
            about = f"{curve.about}{'; hollow: on other samples' if curve and curve.others else ''}"
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100 %"])
    _finish(axes, f"accuracy on the test split, with 95 % intervals, {about or 'n not recorded'}")
    return lines


def _only(series: Series, steps: Iterable[int]) -> Series:
    """The points of a series at these steps."""
    wanted = set(steps)
    points = [(step, value) for step, value in zip(series.steps, series.values, strict=True) if step in wanted]
    return Series(steps=[step for step, _ in points], values=[value for _, value in points])


def _objective(axes: Axes, run: RunRecord) -> list[Line]:
    """The two losses of SFT, or the two rewards of RL."""
    if rewards := _lines(axes, run, REWARDS):
        axes.set_ylim(0, 1)
        _finish(axes, "mean reward of the rollouts")
        return rewards
    losses = _lines(axes, run, LOSSES)
    axes.set_yscale("log")  # The losses of the spans differ by decades.
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    _finish(axes, "nats per token")
    return losses


def _lines(axes: Axes, run: RunRecord, chosen: Sequence[tuple[str, str, str]]) -> list[Line]:
    found = [(name, colour, "{:.3g}", series) for key, name, colour in chosen if (series := run.series(key))]
    for _, colour, _, series in found:
        axes.plot(series.steps, series.values, color=colour, linewidth=1.4)
    return found


def _weight(axes: Axes, run: RunRecord) -> list[Line]:
    lines: list[Line] = []
    if series := run.series("balance/weight"):
        axes.plot(series.steps, series.values, color=WEIGHT, linewidth=1.4)
        lines.append(("weight", WEIGHT, "{:.2f}", series))
    axes.set_ylim(0, 1)
    axes.set_yticks([0, 0.5, 1])
    _finish(axes, "weight of perception (balance.weight)")
    return lines


def _finish(axes: Axes, title: str) -> None:
    dress(axes, title)
    axes.margins(x=0.01)


def _label(axes: Axes, lines: Sequence[Line]) -> None:
    """Write each line's name and last value at its right end."""
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = [_last(series) for *_, series in lines]
    heights = [to_axes.transform(end)[1] if end else 0.0 for end in ends]
    gap = LABEL_GAP_PIXELS / axes.bbox.height
    for (name, colour, form, _), end, height in zip(lines, ends, spread(heights, gap, 0.0, 1.0), strict=True):
        label = f"{name} {form.format(end[1])}" if end else f"{name} not finite"
        axes.annotate(label, (1.01, height), xycoords="axes fraction", color=colour, va="center", annotation_clip=False)


def _last(series: Series) -> tuple[int, float] | None:
    points = [(step, value) for step, value in zip(series.steps, series.values, strict=True) if math.isfinite(value)]
    return points[-1] if points else None
