"""Rerendering: draw what was stated, and compare it with the picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from percasym.config.schema import at_least, fraction, one_of
from percasym.rewards.base import Group, RewardContext, Scores
from percasym.rewards.percepts import Claim, score_percepts
from percasym.types import SampleKey

Known = Literal["same", "other"]
Grey = NDArray[np.float64]
"""One number a pixel, [H, W], 0 to 255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerender:
    """Does a drawing of the stated percept look like the picture?

    max(0, r), with r the correlation of the pixels of picture and drawing; over several drawings, the mean.

    look=same: one drawing under the prompt's own key, so with the font, places, contrast and even the noise of the picture. The true
    percept gives r = 1 exactly and no other does: this is a label in disguise, an upper bound that only a generator can offer.
    look=other: `num_looks` drawings under other keys. Pixels count as ink by their distance from the paper, light or dark, and are
    blurred first, so that contrast, font and small shifts matter less. Assumes that marks stand where they stand in the picture:
    true of Sudoku and of graphs on a ring, false of graphs that are turned or scattered, where this says nothing.

    None for a prompt without a picture.

    Source: analysis by synthesis; for structured pictures, render-and-compare rewards as in RLRF (arXiv:2505.20793).
    Hard to hack without looking, but what is stated is a small part of the pixels (lines, discs): scores within a group spread over a
    few hundredths, so let `paradigm.mixing=normalize_then_sum` weigh them. Measured on 30 pictures of scale=tiny, with percepts of up
    to three errors: r with the graded a_p within prompts is .72 (Sudoku) and .80 (graphs) under other looks, .92 and .88 under the same.
    A drawing costs about 3 ms at 64 pixels and 36 ms at 576.
    """

    asks_outcome: ClassVar[bool] = False
    asks_policy: ClassVar[bool] = False

    look: Known = "other"
    num_looks: int = 2
    """Drawings of each percept under look=other; a second adds .03 to .07 to r, a third and fourth nothing (measured as above)."""
    blur_frac: float = 1 / 64
    """Standard deviation of the blur under look=other, as a share of the picture's side."""

    def __post_init__(self) -> None:
        one_of("reward", Known, look=self.look)
        at_least("reward", 1, num_looks=self.num_looks)
        fraction("reward", blur_frac=self.blur_frac)

    def score(self, groups: Sequence[Group], scene: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        return score_percepts(groups, scene.skills, lambda claims: self._judge(claims, scene))

    def _judge(self, claims: Sequence[Claim], scene: RewardContext) -> list[float | None]:
        prompts = dict.fromkeys(claim.prompt for claim in claims)
        shown = {prompt: self._view(prompt.image) for prompt in prompts if prompt.image is not None}
        return [self._likeness(claim, shown[claim.prompt], scene) if claim.prompt in shown else None for claim in claims]

    def _likeness(self, claim: Claim, shown: Grey, scene: RewardContext) -> float:
        key = claim.prompt.key
        keys = [key] if self.look == "same" else self._other_keys(key)
        return fmean(correlation(shown, self._view(scene.skills.draw(claim.percept, key))) for key in keys)

    def _view(self, picture: bytes) -> Grey:
        return levels(picture) if self.look == "same" else ink(picture, self.blur_frac)

    def _other_keys(self, key: SampleKey) -> list[SampleKey]:
        return [SampleKey(task=key.task, split="rerender", seed=number, index=key.index) for number in range(self.num_looks)]


def levels(picture: bytes) -> Grey:
    """The grey levels of a PNG."""
    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("L"), dtype=np.float64)


def ink(picture: bytes, blur_frac: float) -> Grey:
    """How far each pixel lies from the paper (the median level), blurred."""
    grey = levels(picture)
    distance = Image.fromarray(np.rint(np.abs(grey - np.median(grey))).astype(np.uint8))
    return np.asarray(distance.filter(ImageFilter.GaussianBlur(blur_frac * min(grey.shape))), dtype=np.float64)


def correlation(one: Grey, other: Grey) -> float:
    """Pearson's r of two pictures, or 0 where it is negative; a flat picture is like no other."""
    assert one.shape == other.shape, f"pictures of {one.shape} and {other.shape} cannot be compared"
    a, b = one - one.mean(), other - other.mean()
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float(np.clip((a * b).sum() / size, 0, 1)) if size > 0 else 0.0
