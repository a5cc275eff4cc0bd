"""The scores of one reward on a batch of rollouts: a row for each prompt, None where nothing could be said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = Sequence[Sequence[float | None]]
"""P groups of G scores each; groups may differ in size."""


ROUNDING = 1e-8
"""Scores of a group that differ by less are equal, as they are to an advantage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a reward looks like by itself."""

    num_rollouts: int
    mean: float
    """Of the scores that exist; nan where none does."""
    std: float
    """Standard deviation over all those scores, in and between groups (divided by n)."""
    zero_variance: float
    """Share of groups whose rollouts all earn the same: no advantage comes of them. None earns 0."""
    not_measurable: float
    """Share of rollouts without a score."""


def describe(scores: Scores) -> Description:
    """Mean, spread and gaps of the scores.

    >>> describe([[1.0, 0.0], [0.5, 0.5], [None, 0.0]]).zero_variance == 2 / 3
    True
    """
    everything = [score for group in scores for score in group]
    known = np.array([score for score in everything if score is not None], dtype=float)
    earned = [[0.0 if score is None else score for score in group] for group in scores if group]
    alike = [max(group) - min(group) <= ROUNDING for group in earned]
    return Description(
        num_rollouts=len(everything),
        mean=float(known.mean()) if known.size else np.nan,
        std=float(known.std()) if known.size else np.nan,
        zero_variance=float(np.mean(alike)) if alike else np.nan,
        not_measurable=1 - known.size / len(everything) if everything else np.nan,
    )


def grid(scores: Scores) -> NDArray[np.float64]:
    """The scores as [P, G] floats: nan for None, and behind the last rollout of a smaller group.

    >>> grid([[True, None], [0.5]]).tolist()
    [[1.0, nan], [0.5, nan]]
    """
    width = max((len(group) for group in scores), default=0)
    filled = np.full((len(scores), width), np.nan)
    for row, group in zip(filled, scores, strict=True):
        row[: len(group)] = [np.nan if score is None else score for score in group]
    return filled
