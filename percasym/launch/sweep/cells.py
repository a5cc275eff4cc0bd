"""The cells of a study: a sum of products, where Hydra's own sweeper knows one product.

    cells:
      - balance=none
      - balance=fixed balance.weight=0.1,0.3
    params: {seed: "0,1"}

Each cell is what one would write on a command line, sweeps included; `params` multiply all of them.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice, product

from hydra.core.override_parser.types import Override

from percasym.config.schema import ConfigError

Parse = Callable[[Sequence[str]], Sequence[Override]]
"""Hydra's grammar: words -> overrides."""
MAX_CELLS = 10_000
"""Of one sweep (our choice): each is composed before the first one starts, a tenth of a second or more."""
Options = dict[str, list[str]]
"""Key -> the words that it is swept over, each `key=value`."""


def expanded(cells: Sequence[str], params: Mapping[str, object], given: Sequence[str], parse: Parse) -> list[list[str]]:
    """The words of each run, `given` being those of the command line.

    `params` vary slowest, so that every cell has its first seed before any has its second. The command line wins: a param whose key it
    names gives way to it, and where it names a key that a cell names, what it says takes the place of all cells.
    Raises ConfigError for a sweep that is not a list, has no values, or too many.
    """
    asked = options(parse(given))
    common = {key: words for key, words in options(parse([f"{key}={value}" for key, value in params.items()])).items() if key not in asked}
    own = [options(parse(shlex.split(cell))) for cell in cells]
    if asked.keys() & set(chain.from_iterable(own)):
        own = []
    num_cells = _size(common) * _size(asked) * sum(map(_size, own or [{}]))
    if num_cells > MAX_CELLS:
        raise ConfigError(f"This sweep has {num_cells:,} cells or more, and a study has at most {MAX_CELLS:,}. Sweep over fewer values.")
    return [[*outer, *chosen, *cell] for outer in _product(common) for chosen in _product(asked) for cell in _sum(own)]


def options(overrides: Sequence[Override]) -> Options:
    """What each key may be; of a key that is named twice, the last word counts."""
    found: Options = {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            words = [str(override.input_line)]
        elif override.is_discrete_sweep():
            words = [f"{key}={value}" for value in islice(override.sweep_string_iterator(), MAX_CELLS + 1)]
            if not words:
                raise ConfigError(f"{override.input_line} has no values to sweep over.")
        else:
            raise ConfigError(f"{override.input_line} is no list of values to sweep over: write {key.lstrip('+')}=0.1,0.3 or range(1,4).")
        found[key.lstrip("+~")] = words
    return found


def _size(swept: Options) -> int:
    return math.prod(map(len, swept.values()))


def _product(swept: Options) -> list[tuple[str, ...]]:
    return list(product(*swept.values()))


def _sum(cells: Sequence[Options]) -> list[tuple[str, ...]]:
    return [words for cell in cells for words in _product(cell)] if cells else [()]
