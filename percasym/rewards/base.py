"""The interface of a perception reward: the rollouts of each prompt in, one score in [0, 1] for each rollout out.

A surrogate scores rollouts, which carry no percept label, within a `RewardContext`, which holds no label either: the truth-free
skills of the task, a check of the final answer (that of the outcome reward), and the policy itself. Only the oracle reads grades.

One rule on form holds for every surrogate: a response in which the grammar and the task do not find exactly one percept scores 0. Faults
after the perception span (no answer, two answers) do not change a score, unless the reward is about the answer.

A new reward is one file in this package, named as `reward=` names it, with one dataclass, and one yaml in conf/reward.
`percasym.rewards.registry` finds it there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from percasym.types import Grade, Prompt, Response, Rollout, SampleKey

Group = Sequence[Rollout]
"""The rollouts of one prompt."""
Scores = list[list[float | None]]
"""One score in [0, 1] for each rollout of each group; None where no score is defined (it earns 0, and correlations leave it out)."""


class Skills(Protocol):
    """The methods of `percasym.tasks.base.Task` that need no label; a reward declares its use of `verify`, `draw`, `solve` or `valid`."""

    def parse(self, text: str) -> str | None:
        """The canonical form of a stated percept; None when it is not well formed."""
        ...

    def agreement(self, truth: str, stated: str) -> float:
        """How much two canonical percepts have in common, in [0, 1]."""
        ...

    def verify(self, percept: str, answer: str) -> bool:
        """Is `answer` a correct solution of `percept`?"""
        ...

    def draw(self, percept: str, key: SampleKey) -> bytes:
        """The picture of a canonical percept as PNG bytes; the key decides its appearance only."""
        ...

    def solve(self, percept: str) -> str | None:
        """An exact solution of a canonical percept, or None when there is none."""
        ...

    def valid(self, percept: str) -> bool:
        """Can the task, as configured, generate a picture of this percept?"""
        ...


class Policy(Protocol):
    """Queries to the model in training. Each call is one batch, so a reward makes one call for all groups."""

    def answers(self, prompts: Sequence[Prompt]) -> list[Response]:
        """Greedy responses."""
        ...

    def percepts(self, prompts: Sequence[Prompt]) -> list[str | None]:
        """The percepts of greedy responses; decoding ends with the perception span."""
        ...

    def logprobs(self, prompts: Sequence[Prompt], rollouts: Sequence[Rollout]) -> list[list[float]]:
        """Log-probability of each token of each rollout's completion after these prompts (they may differ from its own)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardContext:
    """Everything that a surrogate may use besides the rollouts."""

    skills: Skills
    right: Callable[[Prompt, str], bool]
    """Is this answer right for this prompt? Only for a reward with `needs_outcome`."""
    policy: Policy
    """Only for a reward with `needs_policy`."""


class Surrogate(Protocol):
    """A perception reward that needs no percept label: a frozen dataclass whose fields are its options.

    A third attribute is optional: `requires: tuple[Skill, ...]`, the skills that it uses beyond `parse` and `agreement` (a ClassVar, or a
    property where an option decides). A task that lacks one of them cannot serve the reward. Without the attribute, none is required.
    """

    needs_outcome: ClassVar[bool]
    """Does it call `RewardContext.right`?"""
    needs_policy: ClassVar[bool]
    """Does it query `RewardContext.policy`? Such a reward costs extra passes of the model."""

    def score(self, groups: Sequence[Group], context: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        ...


@runtime_checkable
class Labelled(Protocol):
    """A perception reward that reads grades, and so the percept label."""

    def score_grade(self, grade: Grade) -> float:
        """The score of one graded rollout."""
        ...


Reward = Surrogate | Labelled
