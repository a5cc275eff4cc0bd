"""Confidence: the policy's own probability of its perception tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from percasym.rewards.base import Group, RewardContext, Scores
from percasym.rewards.percepts import StatedPercept, score_rollouts
from percasym.types import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """Reward percepts that the policy was certain of: the geometric mean of the probabilities of the perception tokens.

    exp(1/N_p * sum over perception tokens of log pi(token | picture, earlier tokens)), at the temperature of the sampler.

    None where the rollout engine gave no log-probabilities.

    Source: the model's own certainty as reward, INTUITOR (arXiv:2505.19590), there the divergence from uniform. Assumes a
    calibrated model. Training on it sharpens whatever the model believes, and a constant percept has the highest certainty of all.
    """

    needs_outcome: ClassVar[bool] = False
    needs_policy: ClassVar[bool] = False

    def score(self, groups: Sequence[Group], context: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        return score_rollouts(groups, context.skills, lambda percepts: [_certainty(own) for own in percepts])


def _certainty(own: StatedPercept) -> float | None:
    logprobs = own.rollout.completion.logprobs
    if logprobs is None:
        return None
    perception = [logprob for logprob, label in zip(logprobs, own.rollout.labels, strict=True) if label == Span.perception]
    return min(1.0, math.exp(fmean(perception)))  # Rounding may leave a certain token slightly above log 1.
