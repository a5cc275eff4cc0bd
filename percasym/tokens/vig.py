"""VIG: weigh the tokens of a demonstration by how much the picture lowers their loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from percasym.config.schema import fraction
from percasym.rewards.image_dependence import flattened
from percasym.tokens.base import Array
from percasym.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Vig:
    """Multiply the loss of each token by its visual information gain, so that the factors of a step average 1.

        g_t = max(0, loss without the picture - loss with it)
        f_t = floor + (1 - floor) g_t / mean of g over the tokens of the step

    - Both losses are those of the model in training, before the update. Without the picture: a flat one of the same size and mean level.
    - A step in which the picture lowers no loss has factors of 1, as do all tokens of a step of text prompts.
    - Gains are measured by two more forwards of a step, without gradient.

    Source: Lee and Hwang 2026, "Selective Training for Large Vision Language Models via Visual Information Gain" (arXiv:2602.17186), of
    which the abstract was read: the gain of samples and tokens as the fall in perplexity by the image. The paper selects samples and tokens
    by it; the weight in proportion, the floor and the flat picture are our choice. Assumes that what a picture makes likelier is seen in
    it: the first token of a reasoning that depends on the percept's text gains nothing.

    >>> import numpy as np
    >>> Vig(floor=0.2).factors(np.array([0.0, 3.0]), np.array([1.5, 0.5]), np.array([2.0, 2.0])).round(3).tolist()
    [0.2, 2.6]
    """

    paradigm: ClassVar[Literal["rl", "sft"]] = "sft"

    floor: float = 0.1
    """Factor of a token that gains nothing; 0 trains visual tokens alone, and so neither the reasoning nor the end of a response."""

    def __post_init__(self) -> None:
        fraction("tokens", floor=self.floor)

    def without(self, prompt: Prompt) -> Prompt:
        """The prompt with a flat picture."""
        return prompt if prompt.image is None else flattened(prompt)

    def gains(self, own: Array, without: Array) -> Array:
        """g_t of each token, from log-probabilities."""
        return np.maximum(0.0, own - without)

    def factors(self, gains: Array, means: Array, sizes: Array) -> Array:
        """f_t of each token."""
        whole = float(sizes.sum())
        mean = float((means * sizes).sum()) / whole if whole else 0.0
        return self.floor + (1 - self.floor) * gains / mean if mean > 0 else np.ones_like(gains)
