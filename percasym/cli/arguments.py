"""An argparse parser whose errors are one sentence, without the usage that argparse prints above it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from percasym.config.schema import ConfigError

CONF = Path(__file__).resolve().parents[1] / "conf"
"""The configuration, in a checkout a link to its folder conf."""


def conf_folder() -> Path:
    """The folder of the configuration. Raises ConfigError where it is missing: a checkout whose links were not kept."""
    if not CONF.is_dir():
        raise ConfigError(f"There is no folder {CONF}. Clone the repository again, with symbolic links, or install the package.")
    return CONF.resolve()


class Arguments(argparse.ArgumentParser):
    """A parser that raises ConfigError for unknown words; the parsers of its subcommands are of this class too."""

    def error(self, message: str) -> NoReturn:
        """Raise argparse's message as a ConfigError."""
        raise ConfigError(f"{self.prog}: {message}. `{self.prog} --help` says what it takes.")


def gathered(words: Sequence[str]) -> list[str]:
    """Move every KEY=VALUE right behind the name of the command: argparse accepts positional arguments in one place only.

    One that follows an option stays there: it may be the option's value, but where the option has one (`--samples=8`).

    >>> gathered(["audit", "task=jsonl", "--samples", "8", "seed=1"])
    ['audit', 'task=jsonl', 'seed=1', '--samples', '8']
    >>> gathered(["audit", "--samples=8", "task=jsonl"])
    ['audit', 'task=jsonl', '--samples=8']
    """
    free = [0]
    for i, (before, word) in enumerate(pairwise(words), 1):
        takes_it = before.startswith("-") and "=" not in before
        if "=" in word and not word.startswith("-") and not takes_it:
            free.append(i)
    return [*(words[i] for i in free if words), *(word for i, word in enumerate(words) if i not in free)]
