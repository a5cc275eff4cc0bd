"""The `percasym` command: runs and tasks; `percasym train` is train.py for an installed package.

percasym plan scale=paper        percasym report multirun/main        percasym compare multirun/main        percasym status multirun/main
percasym dashboard multirun/main
percasym gallery        percasym show graph_coloring        percasym diagnose-rewards multirun/main/sudoku-qwen3vl-rl-none/seed0
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from percasym.cli import audit, dashboard, evaluate, export, plan, replay, report, rollouts, show, train
from percasym.cli.arguments import Arguments, gathered
from percasym.config.escaping import sentence as one_line
from percasym.config.redaction import redact_tracebacks, redacted_output
from percasym.config.schema import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code: 2, with one sentence on stderr, for a mistake of the user."""
    if argv is None:  # The command of the shell.
        redact_tracebacks()
    with redacted_output():
        return _run(list(sys.argv[1:] if argv is None else argv))


def _run(words: list[str]) -> int:
    try:
        if words[:1] == ["gallery"]:  # Has a parser of its own.
            from percasym.cli import gallery

            return gallery.main(words[1:])
        if words[:1] == ["train"]:  # Hydra's grammar, flags included.
            return train.train(words[1:])
        given = _parser().parse_args(gathered(words))
        work: Callable[[argparse.Namespace], None] = given.work
        work(given)
    except (ConfigError, OSError) as error:
        if (reason := _reason(error)) is None:
            raise
        print(one_line(reason), file=sys.stderr)
        return 2
    return 0


def _reason(error: Exception) -> str | None:
    """The message for the user's mistake; None where the error is a defect."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be read or written ({error.strerror}). Name another place."
    return str(error) if isinstance(error, ConfigError | FileNotFoundError) else None


def _parser() -> Arguments:
    parser = Arguments(prog="percasym", description="Train, and look at runs and tasks.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("gallery", help="draw a page of samples for each task")
    for command in (train, plan, report, evaluate, audit, export, rollouts, replay, dashboard, show):
        command.register(commands)
    return parser
