"""Words of a command line, refused in one sentence: argparse's own refusals print the usage above it."""

from __future__ import annotations

import argparse
from typing import NoReturn

from percasym.schema import ConfigError


class Arguments(argparse.ArgumentParser):
    """A parser that raises ConfigError for words that it does not know; those of its subcommands are of this class too."""

    def error(self, message: str) -> NoReturn:
        """Refuse, in argparse's words and with what to do."""
        raise ConfigError(f"{self.prog}: {message}. `{self.prog} --help` says what it takes.")
