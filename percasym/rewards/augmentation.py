"""Augmentation: consistency of the percept under shifts, tints and noise of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import ClassVar

import numpy as np

from percasym.config.schema import at_least, fraction
from percasym.rewards.base import Group, RewardContext, Scores
from percasym.rewards.percepts import StatedPercept, score_percepts
from percasym.rewards.pictures import read_pixels, write_pixels
from percasym.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """Reward percepts that greedy decoding repeats on augmented views of the picture.

    The mean of agreement(percept of the greedy response to a view, stated percept) over the views whose percept can be parsed.

    None for a prompt without a picture, and where no view yields a percept.

    Source: invariance to augmentation as supervision (FixMatch, arXiv:2001.07685), here of a sampled percept to greedy ones.
    Assumes that the augmentations do not change the percept and that the model can still read them. An error that is the same in every
    view scores like the truth, and one constant percept for all pictures scores 1. Costs one decoding of the perception span for each view
    of each prompt.
    """

    needs_outcome: ClassVar[bool] = False
    needs_policy: ClassVar[bool] = True

    num_views: int = 2
    """Augmented pictures of each prompt."""
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

    def score(self, groups: Sequence[Group], context: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        return score_percepts(groups, context.skills, lambda percepts: self._agreements(percepts, context))

    def _agreements(self, percepts: Sequence[StatedPercept], context: RewardContext) -> list[float | None]:
        prompts = list(dict.fromkeys(own.prompt for own in percepts if own.prompt.image is not None))
        views = [self.view(prompt, number) for prompt in prompts for number in range(self.num_views)]
        parsed = [None if text is None else context.skills.parse(text) for text in context.policy.percepts(views)] if views else []
        of_views = {prompt: parsed[i * self.num_views : (i + 1) * self.num_views] for i, prompt in enumerate(prompts)}
        scores: list[float | None] = []
        for own in percepts:
            others = [percept for percept in of_views.get(own.prompt, []) if percept is not None]
            scores.append(fmean(context.skills.agreement(other, own.percept) for other in others) if others else None)
        return scores

    def view(self, prompt: Prompt, number: int) -> Prompt:
        """The prompt with its picture augmented; a deterministic function of the prompt's key and `number`."""
        assert prompt.image is not None, "a prompt without a picture has no views"
        rng = np.random.default_rng(prompt.key.entropy("augmentation", number))
        pixels = read_pixels(prompt.image)
        reach = round(self.shift_frac * min(pixels.shape[:2]))
        down, right = rng.integers(0, 2 * reach, size=2, endpoint=True)
        padded = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
        shifted = padded[down : down + pixels.shape[0], right : right + pixels.shape[1]]
        loss = rng.uniform(0, self.tint, size=3)
        tinted = rng.uniform(0, loss) + (1 - loss) * shifted
        return replace(prompt, image=write_pixels(tinted + self.noise * rng.standard_normal(pixels.shape)))
