"""Grade rollouts, and say what contributed to a change of a; means and intervals are made in `percasym.statistics`.

End-to-end accuracy a: is the answer correct? Perception a_p: is the stated percept p*? Reasoning a_r: is the answer correct when p* is
given? Grading is strict: a response that is not exactly one well-formed perception and one answer counts as incorrect, with its faults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from percasym.statistics import Labels, change
from percasym.types import Estimate, Fault, Grade, Rollout, SampleKey

if TYPE_CHECKING:
    from percasym.tasks.base import Task

HEADLINE = ("end_to_end", "perception", "reasoning")
"""Keys of a, a_p and a_r."""


class Contributions(NamedTuple):
    """What contributed to the change of a on one sample; their sum is the change."""

    via_perception: float
    """A percept became right, or wrong, and that changed the answer."""
    via_reasoning: float
    """Another answer to a percept that is right in both models."""
    via_both: float
    """The rest where a percept became right, or wrong: the answer to the right percept changed as well."""
    otherwise: float
    """Both percepts are wrong."""


def contributions(before: Sequence[float | None], after: Sequence[float | None]) -> Contributions | None:
    """The contributions to the change of a from one model to another on one sample, from its grades (a, a_p, a_r) under each.

    Where one of the two percepts is right, the model with the wrong one was measured with both: `a_r - a` is what p* in place of its own
    percept is worth to it, an intervention on the mediator between picture and answer (Pearl 2001, arXiv:1301.2300). It counts via
    perception, with a minus where the percept became wrong, and the rest of the change via both. None where a grade is missing.

    >>> contributions((0, 0, 1), (1, 1, 1))
    Contributions(via_perception=1.0, via_reasoning=0.0, via_both=0.0, otherwise=0.0)
    >>> contributions((0, 0, 0), (1, 1, 1)).via_both
    1.0
    """
    if None in before or None in after:
        return None
    (a, a_p, a_r), (a_after, a_p_after, a_r_after) = (map(float, grades) for grades in (before, after))  # type: ignore[arg-type]
    was_right, is_right, gained = a_p == 1, a_p_after == 1, a_after - a
    if was_right and is_right:
        return Contributions(0.0, gained, 0.0, 0.0)
    if not was_right and not is_right:
        return Contributions(0.0, 0.0, 0.0, gained)
    worth = a_r - a if is_right else a_after - a_r_after
    return Contributions(worth, 0.0, gained - worth, 0.0)


def contributed(
    before: Sequence[Sequence[float | None]], after: Sequence[Sequence[float | None]], puzzles: Labels = None, seeds: Labels = None
) -> dict[str, Estimate]:
    """Mean of each contribution to the change of a between two models, with the 95 % interval of a paired change.

    - before, after: the grades (a, a_p, a_r) of the same samples under each; a_r is a when p* is given. None is not measured, and a sample
      without one of the six is not counted.
    - puzzles, seeds: of each sample, where several share a puzzle or are of several training seeds.

    The means add up to the gain of a: docs/metrics.md, "Contributions to a change of a". Raises ValueError for other numbers of samples
    before and after, and for grades that are not three.

    >>> found = contributed([(0, 0, 1), (1, 1, 1)], [(1, 1, 1), (1, 1, 1)])
    >>> {name: one.mean for name, one in found.items()}
    {'via_perception': 0.5, 'via_reasoning': 0.0, 'via_both': 0.0, 'otherwise': 0.0}
    """
    if len(before) != len(after):
        raise ValueError(f"Contributions need the grades of the same samples before and after, got {len(before)} and {len(after)}.")
    if wrong := next((grades for grades in (*before, *after) if len(grades) != len(HEADLINE)), None):
        raise ValueError(f"The grades of a sample are (a, a_p, a_r), got {wrong!r}.")
    parts = [contributions(*grades) for grades in zip(before, after, strict=True)]
    columns = {name: [None if part is None else getattr(part, name) for part in parts] for name in Contributions._fields}
    return {name: change(column, puzzles, seeds, reach=1.0) for name, column in columns.items()}


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
