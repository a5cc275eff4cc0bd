"""`percasym show`: the tokens of one demonstration, coloured by span; in a pipe or with NO_COLOR a named line for each span.

percasym show graph_coloring --index 3
"""

from __future__ import annotations

import argparse
from typing import Any

from percasym.config.schema import ConfigError


def register(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    show = commands.add_parser("show", help="one sample as coloured tokens: perception blue, reasoning green")
    show.add_argument("task", choices=("sudoku", "graph_coloring"))
    show.add_argument("--split", default="train_sft", choices=("base", "train_sft", "train_rl", "test"))
    show.add_argument("--seed", type=int, default=0)
    show.add_argument("--index", type=int, default=0)
    show.add_argument("--verbosity", type=int, default=3)
    show.add_argument("--model", metavar="DIR", help="checkpoint whose tokenizer is used (default: the packaged tiny Qwen3-VL)")
    show.set_defaults(work=_show)


def _show(given: argparse.Namespace) -> None:
    from percasym.models import chat, locate
    from percasym.report.words import counted
    from percasym.runs.console import PlainConsole
    from percasym.tasks.graph_coloring.task import GraphColoring
    from percasym.tasks.sudoku.task import Sudoku
    from percasym.types import SampleKey, Span

    if min(given.seed, given.index) < 0:
        raise ConfigError(f"--seed and --index must be at least 0, got {min(given.seed, given.index)}.")
    try:
        task = {"sudoku": Sudoku, "graph_coloring": GraphColoring}[given.task](verbosity=given.verbosity)
        codec = chat.codec(locate.resolve("qwen3vl", "tiny", given.model))
        sample = task.sample(SampleKey(task=task.name, split=given.split, seed=given.seed, index=given.index))
        ids, labels = codec.encode_demonstration(sample.demonstration)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    num_perception = labels.count(Span.perception)
    out = PlainConsole()
    print(codec.show(ids, labels, coloured=out.is_terminal and not out.no_color))
    print(f"{counted(len(ids), 'token')}, {num_perception} of them perception ({100 * num_perception / len(ids):.1f} %).")
