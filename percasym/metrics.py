"""The three separated metrics, and how sure we are of them.

End-to-end a asks whether the answer is right, perception a_p whether the stated percept is p*, and
reasoning a_r whether the answer is right once p* was given. Grading is strict: a response that is not
exactly one well-formed perception and one answer has no right answer, and its faults say why.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from random import Random
from statistics import fmean
from typing import TYPE_CHECKING

from percasym.types import Estimate, Fault, Grade, Rollout

if TYPE_CHECKING:
    from percasym.tasks.base import Task

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

Puzzles = Sequence[Hashable] | None
"""The puzzle of each value, for a small world repeats them: five nodes make 60 test graphs. None: no two share one."""

RESAMPLES = 2000
"""Bootstrap draws: the interval's ends move by less than a tenth of its width between seeds."""


def grade(task: Task, truth: str, rollout: Rollout) -> Grade:
    """The verdict on a rollout, given its p* `truth` in canonical form."""
    response, faults = rollout.response, rollout.response.faults
    stated = None if response.percept is None else task.parse(response.percept)
    if response.percept is not None and stated is None:
        faults = (*faults, Fault.percept_not_readable)
    outcome = not faults and response.answer is not None and task.right(rollout.prompt.key, truth, response.answer)
    return Grade(
        perception=stated == truth,
        perception_graded=0.0 if stated is None else task.agreement(truth, stated),
        outcome=outcome,
        faithful=outcome if stated == truth else _faithful(task, stated, None if faults else response.answer),
        faults=faults,
    )


def _faithful(task: Task, stated: str | None, answer: str | None) -> bool | None:
    """Does `answer` follow from a percept that is not p*? None where nothing could be read, or the task cannot tell."""
    if stated is None or "verify" in task.lacks:
        return None
    return answer is not None and task.verify(stated, answer)


def proportion(values: Sequence[bool | None], puzzles: Puzzles = None) -> Estimate:
    """Share of true values with its Wilson interval; None is not measurable and not counted in n.

    Unlike the normal interval it stays in [0, 1] and does not shrink to a point at 0 or n successes. Values of one puzzle count for
    as many as they are worth (`_worth`).
    Source: Wilson 1927, doi:10.1080/01621459.1927.10502953; with an effective sample size, Korn and Graubard 1998, Survey Methodology 24.

    >>> [round(x, 3) for x in proportion([True] * 8 + [False] * 2).ci95]
    [0.49, 0.943]
    """
    known = _known(values, puzzles)
    if not known:
        return _unknown()
    share, n, z2 = fmean(value for value, _ in known), _worth(known), Z95 * Z95
    centre = (n * share + z2 / 2) / (n + z2)
    reach = Z95 * math.sqrt(n * share * (1 - share) + z2 / 4) / (n + z2)
    low = 0.0 if share == 0 else centre - reach  # Exact at the ends, where rounding would leave 1e-17.
    high = 1.0 if share == 1 else centre + reach
    return Estimate(mean=share, ci95=(low, high), n=len(known))


def average(values: Sequence[float | None], puzzles: Puzzles = None) -> Estimate:
    """Mean of graded values with its percentile bootstrap interval (seeded: same values, same interval), which draws whole puzzles.

    Equal values have an interval of width zero: nothing in them says how they could vary.
    """
    known = _known(values, puzzles)
    return _bootstrap(known) if known else _unknown()


def gain(before: Sequence[float | None], after: Sequence[float | None], puzzles: Puzzles = None) -> Estimate:
    """Mean of the differences `after - before` over the same samples, with the interval of paired data.

    Pairing takes out what makes some samples easier than others. For verdicts (bools) the interval is
    Wald's after half a pair is added to each of the four cells of before x after, so that it keeps a
    width when no sample changed; for graded values it is the bootstrap of the differences. A pair
    with None on either side is not counted in n. Pairs of one puzzle count for as many as they are worth.
    Source: Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions", doi:10.1002/sim.1781.

    >>> gain([False, False, True, False], [True, False, True, True]).mean
    0.5
    """
    if len(before) != len(after):
        raise ValueError(f"A paired gain needs the same samples before and after, got {len(before)} and {len(after)}.")
    pairs = list(zip(before, after, strict=True))
    known = _known([None if old is None or new is None else float(new) - float(old) for old, new in pairs], puzzles)
    if not known:
        return _unknown()
    verdicts = all(isinstance(value, bool) for pair in pairs if None not in pair for value in pair)
    return _agresti_min(known) if verdicts else _bootstrap(known)


def _known(values: Sequence[float | None], puzzles: Puzzles) -> list[tuple[float, Hashable]]:
    """Each known value with its puzzle; without `puzzles`, each with one of its own."""
    own: Sequence[Hashable] = range(len(values)) if puzzles is None else puzzles
    return [(float(value), puzzle) for value, puzzle in zip(values, own, strict=True) if value is not None]


def _worth(known: Sequence[tuple[float, Hashable]]) -> float:
    """As many independent values as these tell of: their number over the design effect, at most their number.

    The design effect is the variance of the mean estimated from puzzles over that from values. Where all values are equal nothing tells
    how alike a puzzle's are, so a puzzle counts as one.
    Source: Kish 1965, "Survey Sampling", chapter 5.
    """
    n, mean = len(known), fmean(value for value, _ in known)
    sums: dict[Hashable, float] = {}
    for value, puzzle in known:
        sums[puzzle] = sums.get(puzzle, 0.0) + value - mean
    groups, spread = len(sums), sum((value - mean) ** 2 for value, _ in known)
    if groups == n or groups == 1 or spread == 0:
        return groups
    effect = (groups / (groups - 1) * sum(total**2 for total in sums.values())) / (n / (n - 1) * spread)
    return n / max(1.0, effect)


def _agresti_min(known: Sequence[tuple[float, Hashable]]) -> Estimate:
    mean, counted = fmean(value for value, _ in known), _worth(known)
    n = counted + 2
    centre = counted * mean / n
    discordant = counted * fmean(abs(value) for value, _ in known) + 1
    reach = Z95 * math.sqrt(discordant - n * centre * centre) / n
    return Estimate(mean=mean, ci95=(max(-1.0, centre - reach), min(1.0, centre + reach)), n=len(known))


def _bootstrap(known: Sequence[tuple[float, Hashable]]) -> Estimate:
    groups: dict[Hashable, list[float]] = {}
    for value, puzzle in known:
        groups.setdefault(puzzle, []).append(value)
    parts = [(sum(values), len(values)) for values in groups.values()]
    rng = Random(0)  # A fixed seed: an interval is a function of its values.
    means = []
    for _ in range(RESAMPLES):
        totals, numbers = zip(*rng.choices(parts, k=len(parts)), strict=True)
        means.append(sum(totals) / sum(numbers))
    means.sort()
    tail = round(0.025 * RESAMPLES)
    return Estimate(mean=fmean(value for value, _ in known), ci95=(means[tail - 1], means[-tail]), n=len(known))


def _unknown() -> Estimate:
    return Estimate(mean=math.nan, ci95=(math.nan, math.nan), n=0)
