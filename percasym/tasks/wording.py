"""Vary the wording of a demonstration at random.

Most of the loss of real chains of thought is the choice between equivalent phrases, which templated text lacks. A table maps each
plain phrase to variants; the choice between them carries no information.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from random import Random

Wordings = Mapping[str, Sequence[str]]
"""Plain phrase -> equivalent phrases; no variant occurs in plain text, so `plain_wording` inverts `vary_wording`."""


def vary_wording(text: str, wordings: Wordings, rng: Random, frac: float) -> str:
    """Replace the share `frac` of the plain phrases in `text` by a uniform choice among the phrase and its variants.

    >>> vary_wording("Set 2.", {"Set": ["Write"]}, Random(0), 0.0), vary_wording("Set 2.", {"Set": ["Write"]}, Random(0), 1.0)
    ('Set 2.', 'Write 2.')
    """

    def chosen(match: re.Match[str]) -> str:
        phrase = match.group()
        return rng.choice([phrase, *wordings[phrase]]) if rng.random() < frac else phrase

    return _any_of(wordings).sub(chosen, text)


def plain_wording(text: str, wordings: Wordings) -> str:
    """Replace every variant in `text` by its plain phrase.

    >>> plain_wording("Write 2.", {"Set": ["Write"]})
    'Set 2.'
    """
    plain = {variant: phrase for phrase, variants in wordings.items() for variant in variants}
    return _any_of(plain).sub(lambda match: plain[match.group()], text)


def _any_of(phrases: Mapping[str, object]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(phrase) for phrase in sorted(phrases, key=len, reverse=True)))
