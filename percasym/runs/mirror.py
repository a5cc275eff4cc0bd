"""An open W&B run that shows metrics.jsonl line by line: line n of the file is row n of the run, W&B's own `_step`.

Rows that W&B has already are not sent again, and lines that it lacks are sent when the run is opened, so its history is the file's
however often the run was interrupted, online or offline. `step`, the optimizer's, is a number of each row and the x axis of every chart.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from percasym.runs.records import read_lines
from percasym.runs.tables import table

NOISE = re.compile(r"/(lo|hi|first|not_measurable|num_samples)$|^(time|tokens)/")
"""Metrics without a chart of their own: ends of intervals, early epochs, counts, clocks. They are sent like all others."""


class WandbMirror:
    """One run as W&B shows it."""

    def __init__(self, wandb: Any, run: Any, row: int) -> None:
        """`wandb` is the package, `run` what its init gave, `row` the number of the next line."""
        self._wandb, self._run, self._row = wandb, run, row
        self._num_known = int(run.step)
        """Rows that W&B has."""
        self._defined: set[str] = set()
        run.define_metric("step", hidden=True)

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Send one line; what was not finite is left out."""
        if self._is_news:
            row = {name: value for name, value in values.items() if value is not None}
            for name in [name for name in row if name not in self._defined]:
                self._run.define_metric(name, step_metric="step", hidden=bool(NOISE.search(name)))
                self._defined.add(name)
            self._run.log({"step": step} | row, step=self._row, commit=True)
        self._row += 1

    def samples(self, split: str, step: int, records: Iterable[Mapping[str, Any]]) -> None:
        """Send the first of these samples as a table, in the row of the next line."""
        if self._is_news:
            shown = table(records)
            rows = [[self._cell(value) for value in row] for row in shown.rows]
            made = self._wandb.Table(columns=list(shown.columns), data=rows)
            self._run.log({f"samples/{split}": made}, step=self._row, commit=False)

    def finish(self, summary: Mapping[str, Any], *, failed: bool) -> None:
        """Send the summary and close the run."""
        self._run.summary.update(dict(summary))
        self._run.finish(exit_code=int(failed))

    def catch_up(self, directory: Path) -> None:
        """Say what the run directory already holds, up to the line that comes next."""
        metrics = directory / "metrics.jsonl"
        lines = read_lines(metrics) if metrics.exists() else []
        self._row -= len(lines)
        kept: dict[int, list[Path]] = {}
        for path in sorted(directory.glob("samples/*_*.jsonl")):
            kept.setdefault(int(path.stem.rpartition("_")[2]), []).append(path)
        for line in lines:
            step = line.pop("step")
            for path in kept.pop(step, ()) if self._is_news else ():
                self.samples(path.stem.rpartition("_")[0], step, read_lines(path))
            line.pop("not_finite", None)
            self.log(step, line)

    def supersede(self, directory: Path) -> None:
        """Mark earlier offline sessions of this run as synced, for the one that lies beside them holds all that they would overwrite."""
        session, others = Path(self._run.dir).parent, directory.absolute() / "wandb"
        for file in others.glob(f"offline-run-*-{self._run.id}/*.wandb") if session.parent == others else ():
            if file.parent != session:
                file.with_suffix(".wandb.synced").touch()

    @property
    def _is_news(self) -> bool:
        """Whether W&B lacks the row that comes next."""
        return self._row >= self._num_known

    def _cell(self, value: Any) -> Any:
        if not isinstance(value, bytes):
            return value
        from PIL import Image

        return self._wandb.Image(Image.open(io.BytesIO(value)))
