"""Grade rollouts, and attribute a change of a; means and intervals are made in `percasym.statistics`.

End-to-end accuracy a: is the answer correct? Perception a_p: is the stated percept p*? Reasoning a_r: is the answer correct when p* is
given? Grading is strict: a response that is not exactly one well-formed perception and one answer counts as incorrect, with its faults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from percasym.types import Fault, Grade, Rollout, SampleKey

if TYPE_CHECKING:
    from percasym.tasks.base import Task

PATHS = ("via_perception", "via_reasoning", "otherwise")
"""The parts of a change of a, in the order of `attributed`."""


class Answers(NamedTuple):
    """The grades of one sample under one model; None for what was not measured."""

    outcome: float | None
    """a: is the answer right?"""
    perception: float | None
    """a_p: is the model's own percept p*?"""
    reasoning: float | None
    """a_r: is the answer right when p* is given?"""


def attributed(before: Answers, after: Answers) -> tuple[float, float, float] | None:
    """The change of a on one sample from one model to another, in parts whose sum it is: one for each of `PATHS`.

    - Both percepts right: reasoning changed the answer. Both wrong: the answer changed without them.
    - The percept became right: perception brought `a_r - a` of the model before, reasoning the rest.
    - The percept became wrong: perception cost `a_r - a` of the model after, reasoning the rest.

    A percept is the mediator between the picture and the answer, and a_r is the answer with the mediator set to p*; where percepts differ,
    the model with the wrong one is the only one that was measured with both. None where a grade is missing.
    Source: direct and indirect effects, Pearl 2001, arXiv:1301.2300.

    >>> attributed(Answers(0.0, 0.0, 1.0), Answers(1.0, 1.0, 1.0))
    (1.0, 0.0, 0.0)
    >>> attributed(Answers(0.0, 0.0, 0.0), Answers(1.0, 1.0, 1.0))
    (0.0, 1.0, 0.0)
    """
    if None in before or None in after:
        return None
    (a, saw, knew), (a_after, sees, knows) = (map(float, one) for one in (before, after))  # type: ignore[arg-type]
    if saw == sees:
        return (0.0, a_after - a, 0.0) if sees else (0.0, 0.0, a_after - a)
    perception = knew - a if sees else a_after - knows
    return perception, a_after - a - perception, 0.0


def grade(task: Task, truth: str, rollout: Rollout) -> Grade:
    """Grade a rollout against its p* `truth` in canonical form."""
    response, faults = rollout.response, rollout.response.faults
    stated = None if response.percept is None else task.parse(response.percept)
    if response.percept is not None and stated is None:
        faults = (*faults, Fault.percept_not_readable)
    outcome = not faults and response.answer is not None and task.right(rollout.prompt.key, truth, response.answer)
    return Grade(
        perception=stated == truth,
        perception_graded=0.0 if stated is None else task.agreement(truth, stated),
        outcome=outcome,
        faithful=outcome if stated == truth else _faithful(task, rollout.prompt.key, stated, None if faults else response.answer),
        faults=faults,
    )


def _faithful(task: Task, key: SampleKey, stated: str | None, answer: str | None) -> bool | None:
    """Whether `answer` is right for a percept that is not p*; None if no percept could be parsed, or the task does not support `verify`."""
    if stated is None or "verify" in task.lacks:
        return None
    return answer is not None and task.right(key, stated, answer)
