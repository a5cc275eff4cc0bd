"""Image dependence: how much less likely the percept is without the picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import ClassVar

import numpy as np

from percasym.rewards.base import Group, RewardContext, Scores
from percasym.rewards.percepts import StatedPercept, score_rollouts
from percasym.rewards.pictures import read_pixels, write_pixels
from percasym.types import Prompt, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDependence:
    """Reward percepts whose likelihood comes from the picture.

    1 - exp(-max(0, D)), D = 1/N_p * sum over perception tokens of log pi(token | picture) - log pi(token | flat picture):
    one minus the geometric mean over tokens of the likelihood ratio, with a flat picture of the same size and mean level.

    None for a prompt without a picture.

    Source: the implicit perception loss of PAPO (arXiv:2507.06448), a KL divergence over the whole response with 60 % of the patches
    masked; here a reward of each rollout, over the perception span, with all of the picture masked. Assumes that text which depends on
    the picture describes it correctly. Any text that varies with the picture is rewarded, a consistent misreading too, and D can be
    raised without bound by making the percept unlikely given the flat picture (PAPO's collapse), which the bound at 1 only slows.
    """

    needs_outcome: ClassVar[bool] = False
    needs_policy: ClassVar[bool] = True

    def score(self, groups: Sequence[Group], context: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        return score_rollouts(groups, context.skills, lambda percepts: self._gains(percepts, context))

    def _gains(self, percepts: Sequence[StatedPercept], context: RewardContext) -> list[float | None]:
        pictured = [i for i, own in enumerate(percepts) if own.prompt.image is not None]
        scores: list[float | None] = [None] * len(percepts)
        if not pictured:
            return scores
        rollouts = [percepts[i].rollout for i in pictured]
        prompts = [rollout.prompt for rollout in rollouts]
        flat = {prompt: flattened(prompt) for prompt in set(prompts)}
        logprobs = context.policy.logprobs([*prompts, *(flat[prompt] for prompt in prompts)], [*rollouts, *rollouts])
        for i, rollout, own, without in zip(pictured, rollouts, logprobs[: len(pictured)], logprobs[len(pictured) :], strict=True):
            gains = [a - b for a, b, label in zip(own, without, rollout.labels, strict=True) if label == Span.perception]
            scores[i] = 1 - math.exp(-max(0.0, fmean(gains)))
        return scores


def flattened(prompt: Prompt) -> Prompt:
    """The prompt with a flat picture of the same size and mean level in place of its own."""
    assert prompt.image is not None, "a prompt without a picture cannot be flattened"
    pixels = read_pixels(prompt.image)
    return replace(prompt, image=write_pixels(np.full_like(pixels, pixels.mean())))
