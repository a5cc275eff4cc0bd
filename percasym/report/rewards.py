"""The reward scatter of a study: the last rollouts of its first run of reinforcement learning that recorded some."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from percasym.report.study import Group

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def reward_scatter(groups: Sequence[Group]) -> Figure | None:
    """The scatter of `percasym diagnose-rewards`; nothing where no run recorded rollouts with rewards."""
    from percasym.diagnosis.diagnose import diagnose
    from percasym.diagnosis.rollout_file import latest_rollouts
    from percasym.diagnosis.rollout_reader import read_rollouts
    from percasym.report.scatter import scatter_of

    recorded = [run.path for group in groups for cell in group.cells for run in cell.runs if any(run.path.glob("samples/rollouts_*.jsonl"))]
    for path in recorded:
        rollouts = read_rollouts(latest_rollouts(path))
        if rollouts and rollouts[0].rewards:
            figure = scatter_of(rollouts, diagnose(rollouts))
            figure.suptitle("/".join(path.parts[-2:]), x=0.01, ha="left", fontsize=11)
            return figure
    return None
