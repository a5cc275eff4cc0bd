"""The scores of one reward on a batch of rollouts: a row for each prompt, None where a rollout has no score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = Sequence[Sequence[float | None]]
"""P groups of G scores each; groups may differ in size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Summary statistics of one reward."""

    num_rollouts: int
    mean: float
    """Mean of the defined scores; nan without any."""
    std: float
    """Standard deviation over all defined scores, within and between groups (divided by n)."""
    zero_variance: float
    """Share of groups whose rollouts all have the same reward, and so no advantage. None counts as 0."""
    not_measurable: float
    """Share of rollouts without a score."""


def describe(scores: Scores) -> Description:
    """Mean, standard deviation, zero-variance groups and missing scores.

    >>> describe([[1.0, 0.0], [0.5, 0.5], [None, 0.0]]).zero_variance == 2 / 3
    True
    """
    all_scores = [score for group in scores for score in group]
    known = np.array([score for score in all_scores if score is not None], dtype=float)
    same = [constant(group) for group in scores if group]
    return Description(
        num_rollouts=len(all_scores),
        mean=float(known.mean()) if known.size else np.nan,
        std=float(known.std()) if known.size else np.nan,
        zero_variance=float(np.mean(same)) if same else np.nan,
        not_measurable=1 - known.size / len(all_scores) if all_scores else np.nan,
    )


def constant(group: Sequence[float | None]) -> bool:
    """Whether all rollouts of a group are paid alike, exactly, as in `percasym.objectives.advantages`; None is paid 0.

    >>> constant([0.0, None]), constant([1.0, None])
    (True, False)
    """
    paid = [0.0 if score is None else score for score in group]
    return max(paid) == min(paid)


def grid(scores: Scores) -> NDArray[np.float64]:
    """The scores as [P, G] floats: nan for None, and as padding of smaller groups.

    >>> grid([[True, None], [0.5]]).tolist()
    [[1.0, nan], [0.5, nan]]
    """
    width = max((len(group) for group in scores), default=0)
    filled = np.full((len(scores), width), np.nan)
    for row, group in zip(filled, scores, strict=True):
        row[: len(group)] = [np.nan if score is None else score for score in group]
    return filled
