"""Reward statistics that RL logs at each step: mean, spread, zero-variance groups, and correlations with perception.

    log = reward_statistics(grades, {"consensus": [[0.4, 1.0], [None, 0.0]]}, total=[[0.1, 1.0], [0.0, 0.0]], reasoning=[0.5, None])

A statistic that is undefined is not logged: the mean of a reward without scores, a correlation with a constant. Shares of zero-variance
groups and of missing scores are always logged, and show why.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from percasym.diagnosis.correlations import coupling
from percasym.diagnosis.scores import Scores, describe, grid
from percasym.types import Grade

VIEWS = {"": "pooled", "/within": "within", "/across": "across"}
"""Suffixes of the three correlations: over all rollouts, within prompts, across prompt means."""


def reward_statistics(
    grades: Sequence[Sequence[Grade]], rewards: Mapping[str, Scores], total: Scores, reasoning: Sequence[float | None] | None = None
) -> dict[str, float]:
    """The numbers of one step, over the P prompts and G rollouts of all ranks.

    - `grades`: [P][G] verdicts; they give `outcome` (a), `perception` (exact a_p) and faithfulness.
    - `rewards`: every measured reward, trained on or not, by name.
    - `total`: the reward that was optimised, R = w a_p + (1 - w) a.
    - `reasoning`: a_r of each prompt, the mean of its counterfactual rollouts; None where it was not measured.

    Writes `reward/<name>/mean`, `/std`, `/zero_variance` and `/not_measurable` of outcome, perception, total and each reward;
    `corr/outcome/perception` and `corr/outcome/faithful` with `/within` and `/across`; `corr/outcome/reasoning/across`, because a_r
    has one value for each prompt; and `corr/<reward>/perception` with `/within` and `/across`.
    """
    outcome, perception = graded(grades, lambda grade: grade.outcome), graded(grades, lambda grade: grade.perception)
    numbers: dict[str, float] = {}
    for name, scores in {"outcome": outcome, "perception": perception, "total": total, **rewards}.items():
        found = describe(scores)
        numbers |= {f"reward/{name}/{what}": getattr(found, what) for what in ("mean", "std", "zero_variance", "not_measurable")}
    numbers |= _correlations("corr/outcome/perception", outcome, perception)
    numbers |= _correlations("corr/outcome/faithful", outcome, graded(grades, lambda grade: grade.faithful))
    if reasoning is not None:
        numbers["corr/outcome/reasoning/across"] = coupling(outcome, per_prompt(reasoning, outcome), resamples=0).across.r
    for name, scores in rewards.items():
        numbers |= _correlations(f"corr/{name}/perception", scores, perception)
    return {name: value for name, value in numbers.items() if not math.isnan(value)}


def weighted_rewards(perception: Scores, outcome: Scores, weight: float) -> dict[str, float]:
    """Raw reward, weight and weighted reward of the two rewards that are trained on, apart: under names of their own.

    For `<name>` perception (the chosen reward, 0 without a score) and outcome, with its weight w or 1 - w: `trained/<name>/raw`, its mean;
    `/weight`; `/weighted`, weight times mean; and `/spread`, weight times the root of the mean variance within groups (divided by n): which
    of the two rules a sum of rewards.

    >>> weighted_rewards([[1, 0]], [[0, 0]], 0.25)["trained/perception/spread"]
    0.125
    """
    numbers: dict[str, float] = {}
    for name, scores, own in (("perception", perception, weight), ("outcome", outcome, 1 - weight)):
        raw = grid(scores)
        numbers |= {
            f"trained/{name}/raw": float(raw.mean()),
            f"trained/{name}/weight": own,
            f"trained/{name}/weighted": own * float(raw.mean()),
            f"trained/{name}/spread": own * math.sqrt(float(raw.var(axis=1).mean())),
        }
    return numbers


def graded(grades: Sequence[Sequence[Grade]], verdict: Callable[[Grade], float | None]) -> Scores:
    """One value from the grade of each rollout, as scores."""
    return [[None if (value := verdict(grade)) is None else float(value) for grade in group] for group in grades]


def per_prompt(values: Sequence[float | None], like: Scores) -> Scores:
    """One value for each prompt, as scores in the shape of `like`."""
    return [[value] * len(group) for value, group in zip(values, like, strict=True)]


def _correlations(prefix: str, x: Scores, y: Scores) -> dict[str, float]:
    found = coupling(x, y, resamples=0)
    return {f"{prefix}{end}": getattr(found, view).r for end, view in VIEWS.items()}
