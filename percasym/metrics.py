"""The three separated metrics, and how sure we are of them.

End-to-end a asks whether the answer is right, perception a_p whether the stated percept is p*, and
reasoning a_r whether the answer is right once p* was given. Grading is strict: a response that is not
exactly one well-formed perception and one answer has no right answer, and its faults say why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING

from percasym.collected import Collected
from percasym.types import Estimate, Fault, Grade, Rollout, SampleKey

if TYPE_CHECKING:
    from percasym.tasks.base import Task

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

RESAMPLES = 2000
"""Bootstrap draws: the interval's ends move by less than a tenth of its width between seeds."""


def grade(task: Task, truth: str, rollout: Rollout) -> Grade:
    """The verdict on a rollout, given its p* `truth` in canonical form."""
    response, faults = rollout.response, rollout.response.faults
    stated = None if response.percept is None else task.parse(response.percept)
    if response.percept is not None and stated is None:
        faults = (*faults, Fault.percept_not_readable)
    outcome = not faults and response.answer is not None and is_right(task, rollout.prompt.key, truth, response.answer)
    return Grade(
        perception=stated == truth,
        perception_graded=0.0 if stated is None else task.agreement(truth, stated),
        outcome=outcome,
        faithful=outcome if stated == truth else _faithful(task, stated, None if faults else response.answer),
        faults=faults,
    )


def is_right(task: Task, key: SampleKey, truth: str, answer: str) -> bool:
    """Is `answer` right for the sample of `key`, whose percept is `truth`?"""
    return task.right(key, answer) if isinstance(task, Collected) else task.verify(truth, answer)


def _faithful(task: Task, stated: str | None, answer: str | None) -> bool | None:
    """Does `answer` follow from a percept that is not p*? None where nothing could be read, or the task cannot tell."""
    if stated is None or (isinstance(task, Collected) and "verify" in task.lacks):
        return None
    return answer is not None and task.verify(stated, answer)


def proportion(values: Sequence[bool | None]) -> Estimate:
    """Share of true values with its Wilson interval; None is not measurable and not counted in n.

    Unlike the normal interval it stays in [0, 1] and does not shrink to a point at 0 or n successes.
    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953.

    >>> [round(x, 3) for x in proportion([True] * 8 + [False] * 2).ci95]
    [0.49, 0.943]
    """
    known = [value for value in values if value is not None]
    n, right = len(known), sum(known)
    if not n:
        return _unknown()
    share, z2 = right / n, Z95 * Z95
    centre = (right + z2 / 2) / (n + z2)
    reach = Z95 * math.sqrt(n * share * (1 - share) + z2 / 4) / (n + z2)
    low = 0.0 if right == 0 else centre - reach  # Exact at the ends, where rounding would leave 1e-17.
    high = 1.0 if right == n else centre + reach
    return Estimate(mean=share, ci95=(low, high), n=n)


def average(values: Sequence[float | None]) -> Estimate:
    """Mean of graded values with its percentile bootstrap interval (seeded: same values, same interval).

    Equal values have an interval of width zero: nothing in them says how they could vary.
    """
    known = [float(value) for value in values if value is not None]
    if not known:
        return _unknown()
    return Estimate(mean=fmean(known), ci95=_bootstrap(known), n=len(known))


def gain(before: Sequence[float | None], after: Sequence[float | None]) -> Estimate:
    """Mean of the differences `after - before` over the same samples, with the interval of paired data.

    Pairing takes out what makes some samples easier than others. For verdicts (bools) the interval is
    Wald's after half a pair is added to each of the four cells of before x after, so that it keeps a
    width when no sample changed; for graded values it is the bootstrap of the differences. A pair
    with None on either side is not counted in n.
    Source: Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions", doi:10.1002/sim.1781.

    >>> gain([False, False, True, False], [True, False, True, True]).mean
    0.5
    """
    if len(before) != len(after):
        raise ValueError(f"A paired gain needs the same samples before and after, got {len(before)} and {len(after)}.")
    pairs = [(old, new) for old, new in zip(before, after, strict=True) if old is not None and new is not None]
    if not pairs:
        return _unknown()
    differences = [float(new) - float(old) for old, new in pairs]
    verdicts = all(isinstance(value, bool) for pair in pairs for value in pair)
    ci95 = _agresti_min(differences) if verdicts else _bootstrap(differences)
    return Estimate(mean=fmean(differences), ci95=ci95, n=len(pairs))


def _agresti_min(differences: Sequence[float]) -> tuple[float, float]:
    n = len(differences) + 2
    centre = sum(differences) / n
    discordant = sum(abs(difference) for difference in differences) + 1
    reach = Z95 * math.sqrt(discordant - n * centre * centre) / n
    return max(-1.0, centre - reach), min(1.0, centre + reach)


def _bootstrap(values: Sequence[float]) -> tuple[float, float]:
    rng = Random(0)  # A fixed seed: an interval is a function of its values.
    means = sorted(fmean(rng.choices(values, k=len(values))) for _ in range(RESAMPLES))
    tail = round(0.025 * RESAMPLES)
    return means[tail - 1], means[-tail]


def _unknown() -> Estimate:
    return Estimate(mean=math.nan, ci95=(math.nan, math.nan), n=0)
