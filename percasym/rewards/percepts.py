"""Stated percepts of rollouts, and scores of them in the shape of the groups.

The rule on form is applied here for every surrogate: a rollout without a readable percept scores 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from percasym.rewards.base import Group, Scores, Skills
from percasym.types import Prompt, Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class StatedPercept:
    """A percept that a rollout states."""

    rollout: Rollout
    percept: str
    """In canonical form."""

    @property
    def prompt(self) -> Prompt:
        """The prompt of the rollout."""
        return self.rollout.prompt


ScoreFunction = Callable[[Sequence[StatedPercept]], Sequence[float | None]]
"""Scores stated percepts of all groups in one call, in their order; never called with an empty sequence."""


def stated_percept(rollout: Rollout, skills: Skills) -> str | None:
    """The percept that a rollout states, in canonical form; None when grammar or task cannot read exactly one."""
    percept = rollout.response.percept
    return None if percept is None else skills.parse(percept)


def score_rollouts(groups: Sequence[Group], skills: Skills, function: ScoreFunction) -> Scores:
    """Score every rollout that states a percept; the others score 0."""
    return _score(groups, skills, function, deduplicate=False)


def score_percepts(groups: Sequence[Group], skills: Skills, function: ScoreFunction) -> Scores:
    """Score every distinct percept of each group once, for all rollouts that state it; rollouts without a percept score 0."""
    return _score(groups, skills, function, deduplicate=True)


def _score(groups: Sequence[Group], skills: Skills, function: ScoreFunction, *, deduplicate: bool) -> Scores:
    found: dict[tuple[int, int | str], StatedPercept] = {}
    keys: list[list[tuple[int, int | str] | None]] = []  # Of each rollout: its entry in `found`.
    for g, group in enumerate(groups):
        keys.append([])
        for i, rollout in enumerate(group):
            percept = stated_percept(rollout, skills)
            key = None if percept is None else (g, percept if deduplicate else i)
            keys[-1].append(key)
            if key is not None and percept is not None:
                found.setdefault(key, StatedPercept(rollout=rollout, percept=percept))
    scores = dict(zip(found, function(list(found.values())), strict=True)) if found else {}
    return [[0.0 if key is None else scores[key] for key in row] for row in keys]
