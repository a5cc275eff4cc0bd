"""The `percasym` command: everything about runs and tasks that is not training (that is train.py).

percasym plan scale=paper        percasym report multirun/main        percasym compare multirun/main        percasym status multirun/main
percasym dashboard multirun/main
percasym gallery        percasym show graph_coloring        percasym diagnose-rewards multirun/main/sudoku-qwen3vl-rl-none/seed0
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from percasym import bring, judge, replay
from percasym.arguments import Arguments, gathered
from percasym.dashboard import command as dashboard
from percasym.schema import ConfigError

if TYPE_CHECKING:
    from percasym.report.load import RunRecord

CONF = Path(__file__).resolve().parent.parent / "conf"
"""The configuration of this checkout."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit code: 2, with one sentence on stderr, for what the user got wrong."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["gallery"]:  # Has options of its own.
            from percasym import gallery

            return gallery.main(words[1:])
        given = _parser().parse_args(gathered(words))
        work: Callable[[argparse.Namespace], None] = given.work
        work(given)
    except (ConfigError, OSError) as error:
        if (reason := _reason(error)) is None:
            raise
        print(" ".join(reason.split()), file=sys.stderr)
        return 2
    return 0


def _reason(error: Exception) -> str | None:
    """What the user got wrong; None where it is a defect."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be read or written ({error.strerror}). Name another place."
    return str(error) if isinstance(error, ConfigError | FileNotFoundError) else None


def _parser() -> Arguments:
    parser = Arguments(prog="percasym", description="Look at runs and tasks; train.py trains.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("gallery", help="draw a page of samples for each task")
    plan = commands.add_parser("plan", help="what a configuration will cost: parameters, memory of each GPU, work of a step")
    plan.add_argument("words", nargs="*", metavar="KEY=VALUE", help="as for train.py: scale=paper model=internvl35 engine.zero_stage=3")
    plan.add_argument("--gpu-gb", type=float, default=80.0, metavar="GB", help="memory of one GPU in 10^9 bytes (default: 80)")
    plan.set_defaults(work=_plan)
    report = commands.add_parser("report", help="a study as a page, figures and tables")
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories, or folders that hold some")
    report.add_argument("--markdown", action="store_true", help="one Markdown table of all runs, a row for each cell")
    report.add_argument("--out", type=Path, metavar="DIR", help="folder to write to (default: report/ in the folder that holds all RUNs)")
    report.set_defaults(work=_report)
    compare = commands.add_parser("compare", help="the cells of a study against balance=none: gains, differences, which predictions hold")
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories, or folders that hold some")
    compare.set_defaults(work=_compare)
    status = commands.add_parser("status", help="where a study stands: done, running with the time left, failed with its reason")
    status.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of studies, or run directories")
    status.set_defaults(work=_status)
    bring.register(commands, _conf)
    dashboard.register(commands)
    judge.register(commands, _conf)
    replay.register(commands)
    show = commands.add_parser("show", help="one sample as coloured tokens: perception blue, reasoning green")
    show.add_argument("task", choices=("sudoku", "graph_coloring"))
    show.add_argument("--split", default="train_sft", choices=("base", "train_sft", "train_rl", "test"))
    show.add_argument("--seed", type=int, default=0)
    show.add_argument("--index", type=int, default=0)
    show.add_argument("--verbosity", type=int, default=3)
    show.add_argument("--model", metavar="DIR", help="checkpoint whose tokenizer is used (default: the packaged tiny Qwen3-VL)")
    show.set_defaults(work=_show)
    return parser


def _plan(given: argparse.Namespace) -> None:
    from rich.console import Console

    from percasym.config import composed
    from percasym.plan.plan import plan
    from percasym.plan.table import table

    settings = composed(given.words, _conf())
    Console(highlight=False).print(table(plan(settings, gpu_gb=given.gpu_gb)), soft_wrap=True)


def _conf() -> Path:
    if not CONF.is_dir():
        raise ConfigError(f"There is no {CONF}: the configuration is that of a checkout (pip install --editable).")
    return CONF


def _report(given: argparse.Namespace) -> None:
    from percasym.report.comparison_table import console, show
    from percasym.report.publish import publish
    from percasym.report.study import study_of
    from percasym.report.table import markdown, table

    runs = _loaded(given.runs)
    if given.markdown:
        print(markdown(runs), end="")
        return
    out = console()
    for run in runs:
        out.print(f"{run.path}: {run.meta['status']}", soft_wrap=True, markup=False)
        if run.summary is not None:
            out.print(table(run.summary))
    try:
        published = publish(runs, given.out or Path(os.path.commonpath([root.absolute() for root in given.runs])) / "report")
    except (OSError, ValueError) as error:
        raise ConfigError(f"The report could not be written: {error}") from error
    for sentence in published.left_out:
        out.print(f"Left out: {sentence}", soft_wrap=True, markup=False)
    try:
        show(study_of(runs, ""), out)
    except ValueError as error:
        out.print(f"Not compared: {error}", soft_wrap=True, markup=False)
    if published.figure is not None:
        out.print(f"Figure: {published.figure}", soft_wrap=True, markup=False)
    out.print(f"Page: {published.page}", soft_wrap=True, markup=False)


def _compare(given: argparse.Namespace) -> None:
    from percasym.report.comparison_table import console, show
    from percasym.report.study import study_of

    runs = _loaded(given.runs)
    try:
        shown = show(study_of(runs, ""), console())
    except ValueError as error:
        raise ConfigError(f"The runs could not be compared: {error}") from error
    if not shown:
        places, unfinished = ", ".join(map(str, given.runs)), sum(run.summary is None for run in runs)
        counts = f"{unfinished} of {len(runs)} runs not finished"
        raise ConfigError(f"No finished run at or below {places} has test results ({counts}). `percasym status` says where they stand.")


def _loaded(roots: Sequence[Path]) -> list[RunRecord]:
    """The runs at or below these folders, each once."""
    from percasym.report.load import load_runs

    return list({run.path.resolve(): run for root in roots for run in load_runs(root)}.values())


def _status(given: argparse.Namespace) -> None:
    import time

    from rich.console import Console

    from percasym.report.load import load_runs
    from percasym.report.status import status
    from percasym.runs.study import read_study

    for root in given.runs:
        planned = read_study(root)
        runs = load_runs(root) if not planned or any(root.rglob("config.yaml")) else []  # A study may be known before its first run.
        Console(highlight=False).print(status(runs, planned, time.time()))


def _show(given: argparse.Namespace) -> None:
    from percasym.models import chat, checkpoint
    from percasym.tasks.graph_coloring.task import GraphColoring
    from percasym.tasks.sudoku.task import Sudoku
    from percasym.types import SampleKey, Span

    if min(given.seed, given.index) < 0:
        raise ConfigError(f"--seed and --index must be at least 0, got {min(given.seed, given.index)}.")
    try:
        task = {"sudoku": Sudoku, "graph_coloring": GraphColoring}[given.task](verbosity=given.verbosity)
        codec = chat.codec(checkpoint.chosen("qwen3vl", "tiny", given.model))
        sample = task.sample(SampleKey(task=task.name, split=given.split, seed=given.seed, index=given.index))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    ids, labels = codec.encode_demonstration(sample.demonstration)
    seen = labels.count(Span.perception)
    print(codec.show(ids, labels))
    print(f"{len(ids)} tokens, {seen} of them perception ({100 * seen / len(ids):.1f} %).")
