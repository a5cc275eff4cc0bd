"""The weight w of R = w s + (1 - w) a that recorded rollouts predict, before any training, with its bootstrap interval.

The outcome a correlates with reasoning more than with seeing (arXiv:2605.29496), so training on it alone teaches reasoning. Our rule, which
is a prediction to be tested by training and not a result of that paper: mix in as much of the perception reward s that within prompts R
goes together with exact perception a_p as much as with reasoning. Of one rollout, reasoning is `faithful`: is the answer right for the
percept that was stated? (a_r has one value for a prompt, and so no variance within it.)

    r(R, a_p) = r(R, faithful)   at   w = -d(a) / (d(s) - d(a)),   d(x) = cov(x, a_p) / sd(a_p) - cov(x, faithful) / sd(faithful)

with covariances within prompts. It is 0 where d(a) >= 0, as the outcome then is coupled to seeing already, and undefined where d(s) <= 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from percasym.diagnosis.correlations import MIN_GROUPS, RESAMPLES
from percasym.diagnosis.scores import Scores, grid

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedWeight:
    """The predicted weight of one reward."""

    weight: float
    """w in [0, 1]; nan where no weight does it, or a_p or faithfulness does not vary within any prompt."""
    ci95: tuple[float, float]
    """Percentile bootstrap over prompts, those of one puzzle together; nan with fewer than `MIN_GROUPS` or mostly undefined resamples."""
    undefined: float
    """Share of the resamples without a weight, in [0, 1]; nan where none was drawn."""

    def __str__(self) -> str:
        """The form in sentences.

        >>> str(PredictedWeight(weight=0.314, ci95=(0.2, 0.451), undefined=0.0))
        '0.31 [0.20, 0.45]'
        """
        low, high = self.ci95
        return f"{self.weight:.2f}" if math.isnan(low) else f"{self.weight:.2f} [{low:.2f}, {high:.2f}]"


def predicted_weight(
    reward: Scores,
    outcome: Scores,
    perception: Scores,
    faithful: Scores,
    *,
    puzzles: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PredictedWeight:
    """The weight at which R = w `reward` + (1 - w) `outcome` goes together with both others alike, from scores [P][G].

    A missing score counts 0, as in training. `puzzles` [P] names the puzzle of each prompt where prompts may share one.

    >>> seen, solved = [[1, 1, 0, 0]], [[1, 0, 1, 0]]
    >>> predicted_weight(seen, solved, perception=seen, faithful=solved, resamples=0).weight
    0.5
    """
    columns = [np.nan_to_num(grid(scores)) for scores in (reward, outcome, perception, faithful)]
    present = ~np.isnan(grid([[0.0] * len(group) for group in reward]))  # Smaller groups are padded.
    sizes = np.maximum(present.sum(1, keepdims=True), 1)
    centred = [np.where(present, column - (column * present).sum(1, keepdims=True) / sizes, 0.0) for column in columns]
    s, a, p, f = centred
    sums = np.stack([(x * y).sum(1) for x, y in ((s, p), (a, p), (p, p), (s, f), (a, f), (f, f))], axis=-1)  # [P, 6]
    if puzzles is not None:
        names = {name: place for place, name in enumerate(dict.fromkeys(puzzles))}
        together = np.zeros((len(names), sums.shape[1]))
        np.add.at(together, [names[name] for name in puzzles], sums)
    else:
        together = sums
    weight = float(_weights(sums.sum(0)))
    if not resamples or len(together) < MIN_GROUPS:
        return PredictedWeight(weight=weight, ci95=(math.nan, math.nan), undefined=math.nan)
    num = len(together)
    drawn = np.random.default_rng(seed).multinomial(num, np.full(num, 1 / num), size=resamples).astype(float)  # [B, puzzles]
    draws = _weights(drawn @ together)
    defined = draws[~np.isnan(draws)]
    ends = np.quantile(defined, (0.025, 0.975)).tolist() if defined.size > resamples / 2 else (math.nan, math.nan)
    return PredictedWeight(weight=weight, ci95=(ends[0], ends[1]), undefined=1 - defined.size / resamples)


def _weights(sums: Array) -> Array:
    """w of sums [..., 6] of products within prompts."""
    sp, ap, pp, sf, af, ff = np.moveaxis(sums, -1, 0)
    varies = (pp > 0) & (ff > 0)
    sd_p, sd_f = np.sqrt(np.where(varies, pp, 1.0)), np.sqrt(np.where(varies, ff, 1.0))
    of_reward, of_outcome = sp / sd_p - sf / sd_f, ap / sd_p - af / sd_f
    solvable = varies & (of_reward > 0)
    gap = np.where(solvable & (of_outcome < 0), of_reward - of_outcome, 1.0)
    found: Array = np.where(of_outcome >= 0, 0.0, np.where(of_reward > 0, -of_outcome / gap, np.nan))
    return np.where(varies, found, np.nan)
