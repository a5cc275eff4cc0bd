"""`percasym export`: samples of a task as files that task=jsonl and task=hub read, and LLaMA-Factory, ms-swift and TRL.

percasym export task=sudoku --split train_sft --num 200 --out mine
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from percasym.cli.arguments import conf_folder


def register(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    export = commands.add_parser("export", help="write samples of a task as files that task=jsonl and task=hub read")
    export.add_argument("words", nargs="*", metavar="KEY=VALUE", help="as for train.py: task=sudoku task.size=9 seed=1")
    export.add_argument("--split", default="train_sft", choices=("base", "train_sft", "train_rl", "test"))
    export.add_argument("--num", type=int, default=200, metavar="N", help="samples (default: 200)")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    export.add_argument(
        "--format", default="jsonl", choices=("jsonl", "hub", "messages"),
        help="columns of task=jsonl, of the paper's released sets, or chat rows of LLaMA-Factory and ms-swift (task=jsonl reads them)",
    )  # fmt: skip
    export.set_defaults(work=_export)


def _export(given: argparse.Namespace) -> None:
    from percasym.config.resolve import composed
    from percasym.data.export import export
    from percasym.report.words import counted

    settings = composed(given.words, conf_folder())
    path = export(settings.task, split=given.split, seed=settings.seed, num=given.num, out=given.out, format=given.format)
    read = f"task=hub task.path={given.out}" if given.format == "hub" else f"task=jsonl task.path={path}"
    print(f"{counted(given.num, 'row')} in {path}: percasym audit {read}")
