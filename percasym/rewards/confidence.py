"""Confidence: how sure the model was while it stated the percept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from percasym.rewards.base import Group, RewardContext, Scores
from percasym.rewards.percepts import Claim, score_rollouts
from percasym.types import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """The geometric mean of the probabilities of the perception tokens.

    exp(1/N_p * sum over perception tokens of log pi(token | picture, earlier tokens)), at the temperature of the sampler.

    None where the rollout engine gave no log-probabilities.

    Source: the model's own certainty as reward, INTUITOR (arXiv:2505.19590), there the divergence from uniform. Assumes a
    calibrated model. Rewarding it sharpens whatever the model believes, and a constant percept is the surest of all.
    """

    asks_outcome: ClassVar[bool] = False
    asks_policy: ClassVar[bool] = False

    def score(self, groups: Sequence[Group], scene: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        return score_rollouts(groups, scene.skills, lambda claims: [_certainty(claim) for claim in claims])


def _certainty(claim: Claim) -> float | None:
    logprobs = claim.rollout.completion.logprobs
    if logprobs is None:
        return None
    seeing = [logprob for logprob, label in zip(logprobs, claim.rollout.labels, strict=True) if label == Span.perception]
    return min(1.0, math.exp(fmean(seeing)))  # Rounding may leave a certain token a hair above log 1.
