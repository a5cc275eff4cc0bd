"""VPPO: update the tokens that depend on the picture most, and rollouts by how much they do as a whole."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from percasym.config.schema import at_least, fraction
from percasym.rewards.pictures import read_pixels, write_pixels
from percasym.tokens.base import Array
from percasym.types import Prompt

MAX_LOG_RATIO, MAX_KL = 20.0, 10.0
"""Clamps of the authors' code: of the log-ratio before its exponential, and of the estimate in nats."""
EVEN = 1e-6
"""Rollouts whose dependencies differ by no more have factor 1, as in the authors' code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vppo:
    """Multiply advantages by a mask of tokens and a scale of rollouts, both from the picture's effect on each token.

        S_t = exp(d) - d - 1,   d = log pi(token | masked picture) - log pi(token | picture)     (k3 estimate of a KL divergence)
        m_t = 1 for the ceil(top_frac N) tokens of a rollout with the largest S_t, else 0
        s_i = floor + (top - floor) n_i,   top = floor + (1 - floor) / mean(n)
        A'_it = m_t s_i A_i

    - n_i: the mean of S over the tokens of rollout i, scaled to [0, 1] by the smallest and the largest of the step. The mean scale is 1.
    - The masked picture has squares of `patch_px` blackened with probability `black_prob`, the same ones for every rollout of a prompt.
    - The denominator of the loss still counts all tokens.

    Source: Huang et al. 2025, "Spotlight on Token Perception for Multimodal Reinforcement Learning" (arXiv:2510.09285); d, the clamps, the
    mask of patches and `top` as in the authors' code (huaixuheqing/VPPO-RL, dp_actor.py), which scales within a micro-batch where this
    scales over the step. Their entropy penalty is left out. Assumes that what a token gains from the picture was seen in it correctly.

    >>> import numpy as np
    >>> vppo, means = Vppo(top_frac=0.5, floor=0.8), np.array([0.0, 2.0])
    >>> vppo.factors(np.array([0.0, 4.0, 1.0, 3.0]), means, np.array([4.0, 4.0])).round(3).tolist()
    [0.0, 1.2, 0.0, 1.2]
    """

    paradigm: ClassVar[Literal["rl", "sft"]] = "rl"

    top_frac: float = 0.2
    """Share of the tokens of a rollout that are trained."""
    floor: float = 0.8
    """Scale of the rollout that depends on the picture least."""
    patch_px: int = 14
    """Side of a square of the mask, in pixels of the prompt's picture."""
    black_prob: float = 0.5
    """Probability that a square is blackened."""

    def __post_init__(self) -> None:
        fraction("tokens", top_frac=self.top_frac, floor=self.floor, black_prob=self.black_prob)
        at_least("tokens", 1, patch_px=self.patch_px)
        if not self.top_frac:
            raise ValueError("tokens.top_frac must be above 0: with 0 no token is trained.")

    def without(self, prompt: Prompt) -> Prompt:
        """The prompt with some squares of its picture black."""
        if prompt.image is None:
            return prompt
        pixels, side, rng = read_pixels(prompt.image).copy(), self.patch_px, prompt.key.rng("vppo")
        for top in range(0, pixels.shape[0], side):
            for left in range(0, pixels.shape[1], side):
                if rng.random() < self.black_prob:
                    pixels[top : top + side, left : left + side] = 0.0
        return replace(prompt, image=write_pixels(pixels))

    def gains(self, own: Array, without: Array) -> Array:
        """S_t of each token."""
        d = np.clip(without - own, -MAX_LOG_RATIO, MAX_LOG_RATIO)
        return np.clip(np.expm1(d) - d, 0.0, MAX_KL)

    def factors(self, gains: Array, means: Array, sizes: Array) -> Array:
        """m_t s_i of each token; with equal gains the first tokens are kept."""
        kept = np.zeros_like(gains)
        kept[np.argsort(-gains, kind="stable")[: math.ceil(self.top_frac * len(gains))]] = 1.0
        return kept * self._scale(float(gains.mean()) if gains.size else 0.0, means)

    def _scale(self, own: float, means: Array) -> float:
        low, high = float(means.min()), float(means.max())
        if high - low <= EVEN:
            return 1.0
        top = self.floor + (1 - self.floor) / float(((means - low) / (high - low)).mean())
        return self.floor + (top - self.floor) * min(1.0, max(0.0, (own - low) / (high - low)))
