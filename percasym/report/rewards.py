"""Which reward goes together with perception: the last rollouts that a study's first run of reinforcement learning recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from percasym.report.study import CellGroup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from percasym.diagnosis.diagnose import Diagnosis
    from percasym.diagnosis.rollout_file import RolloutGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewarded:
    """Recorded rollouts and what their rewards are worth."""

    source: str
    """Cell, seed and file."""
    rollouts: Sequence[RolloutGroup]
    found: Diagnosis


def rewarded(groups: Sequence[CellGroup]) -> Rewarded | None:
    """The rewards of the first run that recorded rollouts with some; None where there is none."""
    runs = [run.path for group in groups for cell in group.cells for run in cell.runs if any(run.path.glob("samples/rollouts_*.jsonl"))]
    return next((one for path in runs if (one := _diagnosed(path)) is not None), None)


def reward_scatter(groups: Sequence[CellGroup]) -> Figure | None:
    """The scatter of `percasym diagnose-rewards`; nothing where no run recorded rollouts with rewards."""
    from percasym.report.scatter import scatter_of

    one = rewarded(groups)
    return None if one is None else scatter_of(one.rollouts, one.found, one.source)


@lru_cache(maxsize=1)  # The figure and the table ask in turn.
def _diagnosed(run: Path) -> Rewarded | None:
    from percasym.diagnosis.diagnose import diagnose
    from percasym.diagnosis.rollout_file import latest_rollouts
    from percasym.diagnosis.rollout_reader import read_rollouts

    file = latest_rollouts(run)
    rollouts = read_rollouts(file)
    if not rollouts[0].rewards:
        return None
    return Rewarded(source="/".join((*run.parts[-2:], file.name)), rollouts=rollouts, found=diagnose(rollouts))
