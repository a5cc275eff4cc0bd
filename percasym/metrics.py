"""Grade rollouts; their means and intervals are made in `percasym.statistics`.

End-to-end accuracy a: is the answer correct? Perception a_p: is the stated percept p*? Reasoning a_r: is the answer correct when p* is
given? Grading is strict: a response that is not exactly one well-formed perception and one answer counts as incorrect, with its faults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from percasym.types import Fault, Grade, Rollout, SampleKey

if TYPE_CHECKING:
    from percasym.tasks.base import Task


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
