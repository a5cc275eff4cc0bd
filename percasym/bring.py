"""The commands for those who bring their own data: what would training make of it, and how does a file of rows look?

percasym audit task=jsonl task.path=rows.jsonl --samples 64
percasym export task=sudoku --split train_sft --num 200 --out mine
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from percasym.audit import Audit


def register(commands: Any, conf: Callable[[], Path]) -> None:
    """Add both commands to a parser's subcommands; `conf` finds the configuration."""
    audit = commands.add_parser("audit", help="perception's share of tokens, loss and gradient, without training")
    audit.add_argument("words", nargs="*", metavar="KEY=VALUE", help="as for train.py: task=jsonl task.path=FILE model.path=DIR")
    audit.add_argument("--samples", type=int, default=64, metavar="N", help="training samples to look at (default: 64)")
    audit.set_defaults(work=lambda given: _audit(given, conf()))
    export = commands.add_parser("export", help="write samples of a task as files that task=jsonl and task=hub read")
    export.add_argument("words", nargs="*", metavar="KEY=VALUE", help="as for train.py: task=sudoku task.size=9 seed=1")
    export.add_argument("--split", default="train_sft", choices=("base", "train_sft", "train_rl", "test"))
    export.add_argument("--num", type=int, default=200, metavar="N", help="samples (default: 200)")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    export.add_argument(
        "--format", default="jsonl", choices=("jsonl", "hub"), help="columns of task=jsonl, or of the paper's released sets"
    )
    export.set_defaults(work=lambda given: _export(given, conf()))


def _audit(given: argparse.Namespace, conf: Path) -> None:
    from rich.console import Console

    from percasym.config import composed

    settings = composed(given.words, conf)
    from percasym.audit import audit
    from percasym.engine.device import choose_device  # Imports torch: only once the configuration is known to be good.

    found = audit(settings, num_samples=given.samples, device=choose_device())
    console = Console(highlight=False, markup=False)
    if found.data:
        console.print(found.data, soft_wrap=True)
    console.print(table(found, given.samples))
    if (caution := found.caution()) is not None:
        console.print(caution, soft_wrap=True)
    console.print(found.advice(), soft_wrap=True)


def _export(given: argparse.Namespace, conf: Path) -> None:
    from percasym.config import composed
    from percasym.data.export import export

    settings = composed(given.words, conf)
    path = export(settings.task, split=given.split, seed=settings.seed, num=given.num, out=given.out, format=given.format)
    read = f"task=jsonl task.path={path}" if given.format == "jsonl" else f"task=hub task.path={given.out}"
    print(f"{given.num} rows in {path}: percasym audit {read}")


def table(found: Audit, num_samples: int) -> Table:
    """Tokens, loss and gradient of both spans, and perception's share of each under the token average."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from percasym.models.adapt import PARTS

    stats, share = found.stats, found.share
    assert stats.losses is not None and stats.gramian is not None
    shown = Table(box=SIMPLE_HEAD, title=f"first step on {num_samples} samples", title_justify="left")
    for column in ("", "perception", "reasoning", "perception's share", "cosine"):
        shown.add_column(column, justify="right" if column else "left", no_wrap=True)
    shown.add_row("tokens", *(f"{count:,}" for count in stats.counts), _percent(share.tokens), "")
    shown.add_row("loss, mean of a token", *(f"{loss:.3f}" for loss in stats.losses), _percent(share.loss), "")
    for name, gramian in (("gradient, norm", stats.gramian), *((f"  {part}", found.groups.get(part)) for part in PARTS)):
        if gramian is None:
            shown.add_row(name, "frozen", "frozen", "", "")
        else:
            norms = (f"{norm:.3g}" for norm in gramian.norms)
            shown.add_row(name, *norms, _percent(found.gradient_share(gramian)), f"{gramian.cosine:.2f}")
    shown.add_row("weight of NGDiff", f"{found.ngdiff:.3f}", f"{1 - found.ngdiff:.3f}", "", "")
    return shown


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f} %"
