"""Which reward could teach a model to see? Measured on recorded rollouts, before any training is spent.

found = diagnose(read_rollouts(path))
print(advice(found), coupling_of_outcome(found))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from percasym.diagnosis.correlations import Correlation, Coupling, coupling
from percasym.diagnosis.rollout_file import RolloutGroup
from percasym.diagnosis.scores import Description, Scores, describe
from percasym.diagnosis.stream import graded, per_prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardDiagnosis:
    """What one reward is worth on these rollouts."""

    name: str
    labelled: bool
    """Whether it reads the percept label: a yardstick."""
    scores: Description
    perception: Coupling
    """With a_p: is the stated percept p*?"""
    perception_graded: Coupling
    """With the agreement of the stated percept with p*."""
    outcome: Coupling
    """With a: is the answer right?"""
    paid: Coupling
    """With the target of the diagnosis, as training pays it: 0 where there is no score, which the others leave out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All rewards of a file of rollouts, the best first."""

    num_groups: int
    num_rollouts: int
    rewards: tuple[RewardDiagnosis, ...]
    """By r with a_p within prompts (graded, where exact a_p is no target), falling; those without one last."""
    exact: bool
    """Whether exact a_p is the target of `paid`; where it is the same among all siblings of every prompt, graded perception is."""
    outcome_perception: Coupling
    outcome_reasoning: Correlation | None
    """r of the prompts' mean a and their a_r; None where a_r was not measured."""


def diagnose(groups: Sequence[RolloutGroup]) -> Diagnosis:
    """Correlate every reward with perception and with the outcome, with bootstrap intervals over prompts.

    Prompts of one puzzle are drawn together.

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
    exact = describe(perception).zero_variance < 1
    correlate = partial(coupling, puzzles=[group.puzzle for group in groups])

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
    )
