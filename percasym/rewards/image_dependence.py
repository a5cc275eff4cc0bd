"""Image dependence: is the percept less likely when the picture is taken away?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import ClassVar

import numpy as np

from percasym.rewards.base import Group, RewardContext, Scores
from percasym.rewards.percepts import Claim, score_rollouts
from percasym.rewards.pictures import read_pixels, write_pixels
from percasym.types import Prompt, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDependence:
    """How much of the percept's likelihood comes from the picture?

    1 - exp(-max(0, D)), D = 1/N_p * sum over perception tokens of log pi(token | picture) - log pi(token | flat picture):
    one minus how likely a token still is, in the geometric mean, before a picture of the same size and mean level that shows nothing.

    None for a prompt without a picture.

    Source: the implicit perception loss of PAPO (arXiv:2507.06448), a KL divergence over the whole response with 60 % of the patches
    masked; here a reward of each rollout, over the perception span, with all of the picture masked. Assumes that what depends on
    the picture is read from it rightly. Any text that varies with the picture earns it, a consistent misreading too, and it can be
    raised without bound by making the percept unlikely before the flat picture (PAPO's collapse), which the bound at 1 only slows.
    """

    asks_outcome: ClassVar[bool] = False
    asks_policy: ClassVar[bool] = True

    def score(self, groups: Sequence[Group], scene: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        return score_rollouts(groups, scene.skills, lambda claims: self._judge(claims, scene))

    def _judge(self, claims: Sequence[Claim], scene: RewardContext) -> list[float | None]:
        seen = [i for i, claim in enumerate(claims) if claim.prompt.image is not None]
        scores: list[float | None] = [None] * len(claims)
        if not seen:
            return scores
        rollouts = [claims[i].rollout for i in seen]
        prompts = [rollout.prompt for rollout in rollouts]
        flat = {prompt: flattened(prompt) for prompt in set(prompts)}
        logprobs = scene.policy.logprobs([*prompts, *(flat[prompt] for prompt in prompts)], [*rollouts, *rollouts])
        for i, rollout, bright, blank in zip(seen, rollouts, logprobs[: len(seen)], logprobs[len(seen) :], strict=True):
            gains = [a - b for a, b, label in zip(bright, blank, rollout.labels, strict=True) if label == Span.perception]
            scores[i] = 1 - math.exp(-max(0.0, fmean(gains)))
        return scores


def flattened(prompt: Prompt) -> Prompt:
    """The prompt with a flat picture of the same size and mean level in place of its own."""
    assert prompt.image is not None, "only a picture can be flattened"
    pixels = read_pixels(prompt.image)
    return replace(prompt, image=write_pixels(np.full_like(pixels, pixels.mean())))
