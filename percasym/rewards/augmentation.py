"""Augmentation: does the model see the same when the picture is shifted, tinted and grainy?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import ClassVar

import numpy as np

from percasym.config.schema import at_least, fraction
from percasym.rewards.base import Group, RewardContext, Scores
from percasym.rewards.percepts import Claim, score_percepts
from percasym.rewards.pictures import read_pixels, write_pixels
from percasym.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Does the stated percept stand when the picture changes in ways that do not matter?

    The mean of agreement(percept of the greedy response to a view, stated percept) over the views of the prompt that are read at all.

    None for a prompt without a picture, and where no view is read.

    Source: invariance to augmentation as supervision (FixMatch, arXiv:2001.07685), here of a sampled reading to greedy ones.
    Assumes that the changes leave the percept alone and within what the model can read. What is misread in every view is paid for
    like the truth, and one percept for all pictures earns 1. Costs a decoding of the perception for each view of each prompt.
    """

    asks_outcome: ClassVar[bool] = False
    asks_policy: ClassVar[bool] = True

    num_views: int = 2
    """Changed pictures of each prompt."""
    shift_frac: float = 0.02
    """Largest shift, as a share of the picture's side."""
    tint: float = 0.3
    """Largest loss of range of a colour channel."""
    noise: float = 0.05
    """Standard deviation of the pixel noise, in units of the full range."""

    def __post_init__(self) -> None:
        at_least("reward", 1, num_views=self.num_views)
        at_least("reward", 0, noise=self.noise)
        fraction("reward", shift_frac=self.shift_frac, tint=self.tint)

    def score(self, groups: Sequence[Group], scene: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        return score_percepts(groups, scene.skills, lambda claims: self._judge(claims, scene))

    def _judge(self, claims: Sequence[Claim], scene: RewardContext) -> list[float | None]:
        prompts = list(dict.fromkeys(claim.prompt for claim in claims if claim.prompt.image is not None))
        views = [self.view(prompt, number) for prompt in prompts for number in range(self.num_views)]
        read = [None if text is None else scene.skills.parse(text) for text in scene.policy.percepts(views)] if views else []
        seen = {prompt: read[i * self.num_views : (i + 1) * self.num_views] for i, prompt in enumerate(prompts)}
        scores: list[float | None] = []
        for claim in claims:
            witnesses = [percept for percept in seen.get(claim.prompt, []) if percept is not None]
            scores.append(fmean(scene.skills.agreement(witness, claim.percept) for witness in witnesses) if witnesses else None)
        return scores

    def view(self, prompt: Prompt, number: int) -> Prompt:
        """The prompt with its picture changed; the prompt's key and `number` decide how."""
        assert prompt.image is not None, "only a picture can be changed"
        rng = np.random.default_rng(prompt.key.entropy("augmentation", number))
        pixels = read_pixels(prompt.image)
        reach = round(self.shift_frac * min(pixels.shape[:2]))
        down, right = rng.integers(0, 2 * reach, size=2, endpoint=True)
        framed = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
        shifted = framed[down : down + pixels.shape[0], right : right + pixels.shape[1]]
        loss = rng.uniform(0, self.tint, size=3)
        tinted = rng.uniform(0, loss) + (1 - loss) * shifted
        return replace(prompt, image=write_pixels(tinted + self.noise * rng.standard_normal(pixels.shape)))
