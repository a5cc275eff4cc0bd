"""Rerendering: pixel correlation of the picture and a drawing of the stated percept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from percasym.config.schema import at_least, fraction, one_of
from percasym.rewards.base import Group, RewardContext, Scores
from percasym.rewards.percepts import StatedPercept, score_percepts
from percasym.rewards.pictures import opened_picture
from percasym.tasks.base import Skill
from percasym.types import SampleKey

Looks = Literal["same", "other"]
Grey = NDArray[np.float64]
"""One grey level for each pixel, [H, W], 0 to 255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerender:
    """Reward percepts whose drawing resembles the picture.

    max(0, r), with r the correlation of the pixels of picture and drawing; the mean over several drawings.

    look=same: one drawing under the prompt's own key, with the same font, positions, contrast and noise as the picture. The true
    percept gives r = 1 exactly and no other does: this is equivalent to the label, an upper bound that only a generator can offer.
    look=other: `num_looks` drawings under other keys. The value of a pixel is its distance from the background level, light or dark,
    blurred, so that contrast, font and small shifts matter less. Assumes that marks have the same positions as in the picture:
    true of Sudoku and of graphs on a ring, false of rotated or scattered layouts of graphs, where the score carries no information.

    None for a prompt without a picture.

    Source: analysis by synthesis; for structured pictures, render-and-compare rewards as in RLRF (arXiv:2505.20793).
    Hard to hack without reading the picture, but the percept covers a small part of the pixels (lines, discs): scores within a group
    differ by a few hundredths, so use `paradigm.mixing=normalize_then_sum`. Measured on 30 pictures of scale=tiny, with percepts of up
    to three errors: r with the graded a_p within prompts is .72 (Sudoku) and .80 (graphs) under other looks, .92 and .88 under the same.
    A drawing takes about 3 ms at 64 pixels and 36 ms at 576.
    """

    needs_outcome: ClassVar[bool] = False
    needs_policy: ClassVar[bool] = False
    requires: ClassVar[tuple[Skill, ...]] = ("draw",)

    look: Looks = "other"
    """other: drawn with another font, contrast and noise; same: with those of the picture, which is the label in disguise."""
    num_looks: int = 2
    """Drawings of each percept under look=other; a second adds .03 to .07 to r, a third and fourth add nothing (measured as above)."""
    blur_frac: float = 1 / 64
    """Standard deviation of the blur under look=other, as a share of the picture's side."""

    def __post_init__(self) -> None:
        one_of("reward", Looks, look=self.look)
        at_least("reward", 1, num_looks=self.num_looks)
        fraction("reward", blur_frac=self.blur_frac)

    def score(self, groups: Sequence[Group], context: RewardContext) -> Scores:
        """A score for each rollout, in the shape of `groups`."""
        return score_percepts(groups, context.skills, lambda percepts: self._likenesses(percepts, context))

    def _likenesses(self, percepts: Sequence[StatedPercept], context: RewardContext) -> list[float | None]:
        prompts = dict.fromkeys(own.prompt for own in percepts)
        pictures = {prompt: self._view(prompt.image) for prompt in prompts if prompt.image is not None}
        return [self._likeness(own, pictures[own.prompt], context) if own.prompt in pictures else None for own in percepts]

    def _likeness(self, own: StatedPercept, picture: Grey, context: RewardContext) -> float:
        key = own.prompt.key
        keys = [key] if self.look == "same" else self._other_keys(key)
        return fmean(correlation(picture, self._view(context.skills.draw(own.percept, key))) for key in keys)

    def _view(self, picture: bytes) -> Grey:
        return levels(picture) if self.look == "same" else ink(picture, self.blur_frac)

    def _other_keys(self, key: SampleKey) -> list[SampleKey]:
        return [SampleKey(task=key.task, split="rerender", seed=number, index=key.index) for number in range(self.num_looks)]


def levels(picture: bytes) -> Grey:
    """The grey levels of a PNG."""
    with opened_picture(picture) as image:
        return np.asarray(image.convert("L"), dtype=np.float64)


def ink(picture: bytes, blur_frac: float) -> Grey:
    """Distance of each pixel from the background (the median level), blurred."""
    grey = levels(picture)
    distance = Image.fromarray(np.rint(np.abs(grey - np.median(grey))).astype(np.uint8))
    return np.asarray(distance.filter(ImageFilter.GaussianBlur(blur_frac * min(grey.shape))), dtype=np.float64)


def correlation(one: Grey, other: Grey) -> float:
    """Pearson's r of two pictures, clipped at 0; 0 where a picture is flat."""
    assert one.shape == other.shape, f"pictures of {one.shape} and {other.shape} cannot be compared"
    a, b = one - one.mean(), other - other.mean()
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float(np.clip((a * b).sum() / size, 0, 1)) if size > 0 else 0.0
