"""The same statement in other words.

People and language models never say a thing twice alike, so most of the loss of real chains of thought
is choice of words. A table gives each plain phrase its variants; which one is said carries no meaning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random

Wordings = Mapping[str, Sequence[str]]
"""Plain phrase -> other ways to say it; no variant occurs in plain text, so `plainly` undoes `varied`."""


def varied(text: str, wordings: Wordings, rng: Random, frac: float) -> str:
    """`text` with each plain phrase, for the share `frac` of them, in words drawn evenly from it and its variants.

    >>> varied("Set 2.", {"Set": ["Write"]}, Random(0), 0.0), varied("Set 2.", {"Set": ["Write"]}, Random(0), 1.0)
    ('Set 2.', 'Write 2.')
    """

    def said(match: re.Match[str]) -> str:
        phrase = match.group()
        return rng.choice([phrase, *wordings[phrase]]) if rng.random() < frac else phrase

    return _any_of(wordings).sub(said, text)


def plainly(text: str, wordings: Wordings) -> str:
    """`text` in plain phrases only.

    >>> plainly("Write 2.", {"Set": ["Write"]})
    'Set 2.'
    """
    plain = {variant: phrase for phrase, variants in wordings.items() for variant in variants}
    return _any_of(plain).sub(lambda match: plain[match.group()], text)


def _any_of(phrases: Mapping[str, object]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True)))
