"""`percasym replay RUN`: recompute the batches of a step that diverged, with the weights of the last checkpoint."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from percasym.config.resolve import rebuild
from percasym.config.schema import ConfigError
from percasym.runs.identity import find


def register(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    replay = commands.add_parser("replay", help="recompute a step that diverged, with the weights of the last checkpoint")
    replay.add_argument("run", type=Path, metavar="RUN", help="run directory")
    replay.add_argument("--plugins", nargs="+", default=[], metavar="PACKAGE", help="packages of the run's classes that you trust")
    replay.set_defaults(work=_replay)


def _replay(given: argparse.Namespace) -> None:
    try:
        if (record := find(given.run).config) is None:
            raise ConfigError(f"{given.run} is no run directory: it holds no config.yaml.")
        settings = rebuild(record, path=given.run, plugins=given.plugins)
        from percasym.app.replay import replay
        from percasym.engine.ranks import choose_device  # Imports torch: only after the configuration was checked.

        print("\n".join(replay(settings, choose_device()).lines()))
    except ValueError as error:
        raise ConfigError(str(error)) from error
