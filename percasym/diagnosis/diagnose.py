"""Correlation of every reward with perception, measured on recorded rollouts before any training.

found = diagnose(read_rollouts(path))
print(advice(found), coupling_of_outcome(found))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from percasym.diagnosis.correlations import Correlation, Coupling, coupling
from percasym.diagnosis.rollout_file import RolloutGroup
from percasym.diagnosis.scores import Description, Scores, constant, describe
from percasym.diagnosis.stream import graded, per_prompt
from percasym.diagnosis.weight import PredictedWeight, predicted_weight
from percasym.statistics import gain
from percasym.types import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardDiagnosis:
    """The statistics of one reward on these rollouts."""

    name: str
    labelled: bool
    """Whether it reads the percept label: a reference for the others."""
    scores: Description
    perception: Coupling
    """Correlation with a_p: is the stated percept p*?"""
    perception_graded: Coupling
    """Correlation with graded perception, the agreement of the stated percept with p*."""
    outcome: Coupling
    """Correlation with a: is the answer right?"""
    paid: Coupling
    """Correlation with the target of the diagnosis, with 0 for missing scores as in training; the others leave those out."""
    weight: PredictedWeight
    """The weight of this reward against the outcome that the rollouts predict (`percasym.diagnosis.weight`)."""
    alone: float
    """Share of the groups in which it varies and the outcome does not: under `mixing=sum_then_normalize` they are trained for it alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All rewards in a file of rollouts, best first."""

    num_groups: int
    num_rollouts: int
    rewards: tuple[RewardDiagnosis, ...]
    """By descending r with the target within prompts; those without an r last."""
    exact: bool
    """Whether the target is exact a_p; if it has zero variance within every prompt, the target is graded perception."""
    outcome_perception: Coupling
    outcome_reasoning: Correlation | None
    """r of the mean a of prompts and their a_r; None where a_r was not measured."""
    outcome_faithful: Coupling
    """Correlation of a with faithfulness, a_r's counterpart within prompts."""
    outcome: Description
    headroom: Estimate | None
    """a_r - a, paired by prompt: what a would gain if every percept were p*; None where a_r was not measured."""


def diagnose(groups: Sequence[RolloutGroup]) -> Diagnosis:
    """Correlate every reward with perception and with the outcome, with bootstrap intervals over prompts, those of one puzzle together.

    Raises ValueError when no reward was measured.
    """
    if not groups or not groups[0].rewards:
        raise ValueError("These rollouts carry no rewards, so there is nothing to diagnose. Sample them with `percasym rollouts`.")
    grades = [group.grades for group in groups]
    perception, perception_graded, outcome = (
        graded(grades, lambda grade: grade.perception),
        graded(grades, lambda grade: grade.perception_graded),
        graded(grades, lambda grade: grade.outcome),
    )
    faithful = graded(grades, lambda grade: grade.faithful)
    exact = describe(perception).zero_variance < 1
    puzzles = [group.puzzle for group in groups]
    correlate = partial(coupling, puzzles=puzzles)

    def of(name: str) -> RewardDiagnosis:
        scores: Scores = [group.rewards[name] for group in groups]
        return RewardDiagnosis(
            name=name,
            labelled=any(name in group.labelled for group in groups),
            scores=describe(scores),
            perception=correlate(scores, perception),
            perception_graded=correlate(scores, perception_graded),
            outcome=correlate(scores, outcome),
            paid=correlate([[score or 0.0 for score in group] for group in scores], perception if exact else perception_graded),
            weight=predicted_weight(scores, outcome, perception, faithful, puzzles=puzzles),
            alone=fmean(constant(right) and not constant(own) for own, right in zip(scores, outcome, strict=True)),
        )

    def rank(reward: RewardDiagnosis) -> tuple[float, str]:
        r = (reward.perception if exact else reward.perception_graded).within.r
        return math.inf if math.isnan(r) else -r, reward.name

    reasoning = [group.reasoning for group in groups]
    measured = any(share is not None for share in reasoning)
    return Diagnosis(
        num_groups=len(groups),
        num_rollouts=sum(map(len, grades)),
        rewards=tuple(sorted((of(name) for name in groups[0].rewards), key=rank)),
        exact=exact,
        outcome_perception=correlate(outcome, perception),
        outcome_reasoning=correlate(outcome, per_prompt(reasoning, outcome)).across if measured else None,
        outcome_faithful=correlate(outcome, faithful),
        outcome=describe(outcome),
        headroom=gain([fmean(group) for group in _known(outcome)], reasoning, puzzles) if measured else None,
    )


def _known(scores: Scores) -> list[list[float]]:
    """Scores of a verdict that every rollout has."""
    return [[float(score) for score in group if score is not None] for group in scores]
