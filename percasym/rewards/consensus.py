"""Consensus: agreement of a percept with those of the sibling rollouts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from percasym.config.schema import one_of
from percasym.rewards.base import Group, RewardContext, Scores, Skills
from percasym.rewards.percepts import stated_percept

Vote = Literal["soft", "majority"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Consensus:
    """Reward percepts that the other rollouts of the prompt state, too.

    soft: the mean of agreement(other, own) over the siblings whose percept can be read.
    majority: 1 for the percept that is stated more often than any other, and at least twice; 0 for the others.

    None where no sibling can be read (soft), or no percept is ahead of the others (majority).

    Source: majority as in TTRL (arXiv:2504.16084), there for answers; soft is the same vote by parts.
    Assumes that errors of perception are independent between samples of one picture. An error that all siblings share scores
    like the truth, and one valid percept stated for every picture scores 1: monitor the entropy of the percepts.
    """

    needs_outcome: ClassVar[bool] = False
    needs_policy: ClassVar[bool] = False

    vote: Vote = "soft"
    """soft (mean agreement with the other rollouts) or majority."""

    def __post_init__(self) -> None:
        one_of("reward", Vote, vote=self.vote)

    def score(self, groups: Sequence[Group], context: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        return [self._group([stated_percept(rollout, context.skills) for rollout in group], context.skills) for group in groups]

    def _group(self, percepts: Sequence[str | None], skills: Skills) -> list[float | None]:
        votes = Counter(percept for percept in percepts if percept is not None)
        scores = _majority(votes) if self.vote == "majority" else {own: _agreement(own, votes, skills) for own in votes}
        return [0.0 if percept is None else scores[percept] for percept in percepts]


def _agreement(own: str, votes: Counter[str], skills: Skills) -> float | None:
    """Mean agreement of one percept with those of the siblings, each counted as often as it was stated."""
    others = Counter(votes)
    others[own] -= 1
    if not others.total():
        return None
    # Sorted: the sum of floats, and so the score, must not depend on the order of the siblings.
    return sum(count * skills.agreement(other, own) for other, count in sorted(others.items()) if count) / others.total()


def _majority(votes: Counter[str]) -> dict[str, float | None]:
    most = max(votes.values(), default=0)
    leaders = [percept for percept, count in votes.items() if count == most]
    decided = len(leaders) == 1 and most > 1
    return {percept: float(percept == leaders[0]) if decided else None for percept in votes}
