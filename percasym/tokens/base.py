"""The interface of a weight of single tokens: log-probabilities with and without the picture in, a factor for each token out.

In RL (`paradigm = "rl"`) the factor multiplies the advantage of the token, in SFT (`"sft"`) its loss. The trainer makes the forwards; a
method sees numbers, and the prompt whose picture it masks.

A new method is one file in this package and one yaml in conf/tokens.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from percasym.types import Prompt

Array = NDArray[np.float64]


class TokenWeights(Protocol):
    """A weight of single tokens: a frozen dataclass whose fields are its options."""

    paradigm: ClassVar[Literal["rl", "sft"]]
    """What it weighs: advantages of rollouts, or losses of demonstrations."""

    def without(self, prompt: Prompt) -> Prompt:
        """The prompt with a picture of the same size that shows less, or nothing; a prompt without a picture as it is."""
        ...

    def gains(self, own: Array, without: Array) -> Array:
        """[N] what the picture adds to each token of one response, from its log-probabilities [N] after either prompt, in nats."""
        ...

    def factors(self, gains: Array, means: Array, sizes: Array) -> Array:
        """[N] a factor of at least 0 for each token of one response.

        `means` [R] and `sizes` [R] are the mean gain and the number of tokens of every response of the step, over all ranks.
        """
        ...
