"""`tracker=tensorboard`: the numbers of metrics.jsonl as TensorBoard scalars, through torch's own writer.

    tensorboard --logdir multirun/STUDY

The events lie in RUN/tensorboard. metrics.jsonl stays the record: when a run is opened again its events are written anew from the file,
so they equal it however often the run was interrupted, and nothing of a step that a checkpoint undid remains. This file is in `app`
because torch's writer is imported here, and only when a run with this tracker starts.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from percasym.config.escaping import markdown
from percasym.config.redaction import redacted_values
from percasym.runs.identity import TENSORBOARD
from percasym.runs.records import document
from percasym.runs.trackers import recorded_lines, sample_table


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorboardTracker:
    """Mirror every run to TensorBoard (`tracker=tensorboard`): the same keys as in metrics.jsonl, on the optimizer's steps."""

    flush_seconds: int = 30
    """Longest time between a number and its event on disk."""

    def __post_init__(self) -> None:
        if self.flush_seconds < 1:
            raise ValueError(f"tracker.flush_seconds must be at least 1, got {self.flush_seconds}.")
        if find_spec("tensorboard") is None:
            raise ValueError(
                "tracker=tensorboard needs the tensorboard package. Run `pip install percasym[tensorboard]`, or choose tracker=none."
            )

    def start(self, *, directory: Path, identity: str, config: Mapping[str, Any], num_lines: int) -> TensorboardMirror:
        """Open the events of a run, and write those of the lines and samples that it holds.

        Raises ValueError when they cannot be written.
        """
        from torch.utils.tensorboard import SummaryWriter

        folder = directory / TENSORBOARD
        try:
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
            writer = SummaryWriter(log_dir=str(folder), purge_step=0, flush_secs=self.flush_seconds)
        except OSError as error:
            raise ValueError(f"The events of TensorBoard cannot be written to {folder} ({error.strerror}). Name another place.") from error
        mirror = TensorboardMirror(writer)
        writer.add_text("config", f"```\n{document(redacted_values(config))}\n```", 0)
        for step, values, samples in recorded_lines(directory):
            for split, records in samples:
                mirror.samples(split, step, records)
            mirror.log(step, values)
        return mirror


class TensorboardMirror:
    """The open event file of a run."""

    def __init__(self, writer: Any) -> None:
        """`writer` is torch's SummaryWriter."""
        self._writer = writer

    def log(self, step: int, values: Mapping[str, float | None]) -> None:
        """Write the numbers of a step; those that were not finite are left out."""
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, step, new_style=True)

    def samples(self, split: str, step: int, records: Iterable[Mapping[str, Any]]) -> None:
        """Write the first samples of a step as a Markdown table, without their pictures."""
        shown = sample_table(records)
        columns = [place for place, name in enumerate(shown.columns) if name != "picture"]
        rows = [["" if row[place] is None else markdown(str(redacted_values(row[place]))) for place in columns] for row in shown.rows]
        head = [[shown.columns[place] for place in columns], ["---"] * len(columns)]
        self._writer.add_text(f"samples/{split}", "\n".join("| " + " | ".join(row) + " |" for row in [*head, *rows]), step)

    def finish(self, summary: Mapping[str, Any], *, failed: bool) -> None:
        """Write the summary and close the file."""
        self._writer.add_text("summary", f"```\n{document(redacted_values(summary))}\n```", 0)
        self._writer.close()
