"""The cells of a study: a sum of products, where Hydra's own sweeper expands one product.

    cells:
      - balance=none
      - balance=fixed balance.weight=0.1,0.3
    params: {seed: "0,1"}

Each cell is a command line, which may sweep itself; `params` multiply all of them.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice, product

from hydra.core.override_parser.types import Override

from percasym.config.composed_files import check_cells
from percasym.config.schema import ConfigError

Parse = Callable[[Sequence[str]], Sequence[Override]]
"""Hydra's grammar: words -> overrides."""
MAX_CELLS = 10_000
"""Of one sweep (our choice): each is composed before the first one starts, which takes a tenth of a second or more."""
Options = dict[str, list[str]]
"""Key -> the words `key=value` that it is swept over."""


def expanded(cells: Sequence[str], params: Mapping[str, object], given: Sequence[str], parse: Parse) -> list[list[str]]:
    """The words of each run; `given` are those of the command line.

    `params` vary slowest, so that every cell has its first seed before any has its second. The command line wins: it replaces a param of
    the same key, and where it names a key that a cell names, it replaces all cells.
    Raises ConfigError for a sweep that is not a list, has no values, or too many, and for words that count only on the command line.
    """
    named = options(parse(given))
    common = {key: words for key, words in options(parse([f"{key}={value}" for key, value in params.items()])).items() if key not in named}
    own = [options(parse(shlex.split(cell))) for cell in cells]
    check_cells(f"{key}={value}" for key, value in params.items())
    check_cells(word for cell in own for words in cell.values() for word in words)
    if named.keys() & set(chain.from_iterable(own)):
        own = []
    num_cells = _size(common) * _size(named) * sum(map(_size, own or [{}]))
    if num_cells > MAX_CELLS:
        raise ConfigError(f"This sweep has {num_cells:,} cells or more, and a study has at most {MAX_CELLS:,}. Sweep over fewer values.")
    return [[*outer, *chosen, *cell] for outer in _product(common) for chosen in _product(named) for cell in _sum(own)]


def options(overrides: Sequence[Override]) -> Options:
    """The words of each key; of a key that is given twice, the last word counts."""
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
