"""What a perception reward is: the siblings of each prompt in, one number in [0, 1] for each out.

A surrogate is scored on rollouts, which carry no percept label, in a `RewardContext`, which holds none either: the
truth-free skills of the task, whether an answer is right (what the outcome reward asks too), and the model itself.
Only the oracle is handed grades.

One rule on form: what the grammar and the task cannot read as exactly one percept earns 0 in every surrogate. What is
wrong after the perception (no answer, two answers) costs nothing, except where the reward is about the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from percasym.types import Grade, Prompt, Response, Rollout, SampleKey

Group = Sequence[Rollout]
"""The rollouts of one prompt."""
Scores = list[list[float | None]]
"""One score in [0, 1] for each rollout of each group; None where nothing can be said (it earns 0, and no correlation counts it)."""


class Skills(Protocol):
    """What a task can do without knowing any truth: these methods of `percasym.tasks.base.Task`, and no others."""

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
        """The picture of a canonical percept as PNG bytes; the key decides the look only."""
        ...

    def solve(self, percept: str) -> str | None:
        """An exact solution of a canonical percept, or None when there is none."""
        ...

    def valid(self, percept: str) -> bool:
        """Could the task, as it is set, show this percept in some picture?"""
        ...


class Policy(Protocol):
    """The model in training, asked once more. Each question is one batch: ask for all groups at once."""

    def answers(self, prompts: Sequence[Prompt]) -> list[Response]:
        """Greedy responses."""
        ...

    def percepts(self, prompts: Sequence[Prompt]) -> list[str | None]:
        """The percepts that greedy responses state; decoding ends where the perception does."""
        ...

    def logprobs(self, prompts: Sequence[Prompt], rollouts: Sequence[Rollout]) -> list[list[float]]:
        """Log-probability of each token of each rollout's completion after these prompts (they may differ from its own)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardContext:
    """All that a surrogate may look at besides the rollouts."""

    skills: Skills
    right: Callable[[Prompt, str], bool]
    """Is this answer right for this prompt? Only a reward with `asks_outcome` may call it."""
    policy: Policy
    """Only a reward with `asks_policy` may ask it."""


class Surrogate(Protocol):
    """A perception reward that needs no percept label: a frozen dataclass whose fields are its options."""

    asks_outcome: ClassVar[bool]
    asks_policy: ClassVar[bool]

    def score(self, groups: Sequence[Group], scene: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        ...


@runtime_checkable
class Labelled(Protocol):
    """A perception reward that reads the verdict on the percept label."""

    def of(self, grade: Grade) -> float:
        """The score of one graded rollout."""
        ...


Reward = Surrogate | Labelled
