"""What rollouts state, and how a score of it takes the shape of the groups.

Here the rule on form is kept for every surrogate: where nothing is stated that can be read, the score is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from percasym.rewards.base import Group, Scores, Skills
from percasym.types import Prompt, Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A percept that a rollout states."""

    rollout: Rollout
    percept: str
    """In canonical form."""

    @property
    def prompt(self) -> Prompt:
        """What the rollout answers."""
        return self.rollout.prompt


Judge = Callable[[Sequence[Claim]], Sequence[float | None]]
"""Scores some claims of all groups at once, in their order; never called with none."""


def stated(rollout: Rollout, skills: Skills) -> str | None:
    """The percept that a rollout states, in canonical form; None when grammar or task cannot read exactly one."""
    percept = rollout.response.percept
    return None if percept is None else skills.parse(percept)


def score_rollouts(groups: Sequence[Group], skills: Skills, judge: Judge) -> Scores:
    """Judge every rollout that states a percept; the others score 0."""
    return _score(groups, skills, judge, each_once=False)


def score_percepts(groups: Sequence[Group], skills: Skills, judge: Judge) -> Scores:
    """Judge every distinct percept of each group once, whichever rollouts state it; rollouts without one score 0."""
    return _score(groups, skills, judge, each_once=True)


def _score(groups: Sequence[Group], skills: Skills, judge: Judge, *, each_once: bool) -> Scores:
    claims: dict[tuple[int, int | str], Claim] = {}
    places: list[list[tuple[int, int | str] | None]] = []  # Of each rollout's claim.
    for g, group in enumerate(groups):
        places.append([])
        for i, rollout in enumerate(group):
            percept = stated(rollout, skills)
            place = None if percept is None else (g, percept if each_once else i)
            places[-1].append(place)
            if place is not None and percept is not None:
                claims.setdefault(place, Claim(rollout=rollout, percept=percept))
    verdicts = dict(zip(claims, judge(list(claims.values())), strict=True)) if claims else {}
    return [[0.0 if place is None else verdicts[place] for place in row] for row in places]
