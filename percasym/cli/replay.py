"""`percasym replay RUN`: the batches of a step that diverged, before the last checkpoint again."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from percasym.config.resolve import rebuild
from percasym.config.schema import ConfigError
from percasym.runs.identity import held_config


def register(commands: Any) -> None:
    """Add the subcommand."""
    replay = commands.add_parser("replay", help="the batches of a step that diverged, before the last checkpoint again")
    replay.add_argument("run", type=Path, metavar="RUN", help="run directory")
    replay.set_defaults(work=_replay)


def _replay(given: argparse.Namespace) -> None:
    try:
        if (record := held_config(given.run)) is None:
            raise ConfigError(f"{given.run} is no run directory: it holds no config.yaml.")
        settings = rebuild(record, path=given.run)
        from percasym.app.replay import replay
        from percasym.engine.device import choose_device  # Imports torch: only once the configuration is known to be good.

        print("\n".join(replay(settings, choose_device()).lines()))
    except ValueError as error:
        raise ConfigError(str(error)) from error
