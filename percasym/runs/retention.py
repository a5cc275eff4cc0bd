"""Which checkpoints stay: the last ones, to fall back on where one is damaged, and the best one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from percasym.runs.checkpoint import DONE, numbered


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What a run does with its older checkpoints whenever it has written another."""

    last: int = 0
    """How many of the newest stay; 0 keeps all."""
    best: str = ""
    """A metric: the checkpoint at which it was highest (the first, among equals) stays too."""

    def prune(self, root: Path, newest: int, scores: Mapping[int, float]) -> None:
        """Delete the others, up to step `newest`, under `root`; `scores` are the values of `best` by step.

        A checkpoint beyond `newest` is one that was passed over as damaged: it is written again when the run gets there.
        What a kill left half deleted is without DONE, and goes too.
        """
        if not self.last:
            return
        past = sorted((step, path) for step, path in numbered(root) if step <= newest)
        whole = [step for step, path in past if (path / DONE).is_file()]
        best = max((step for step in whole if step in scores), key=lambda step: (scores[step], -step), default=newest)
        for step, path in past:
            if step not in (*whole[-self.last :], best):
                (path / DONE).unlink(missing_ok=True)
                shutil.rmtree(path)
