"""Read run directories: `percasym report` (a page, figures, tables), `percasym compare` (cells against balance=none) and
`percasym status` (progress of a study).

percasym report multirun/main        percasym compare multirun/main        percasym status multirun/main
percasym compare multirun/evaluations/A multirun/evaluations/B
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from percasym.config.schema import ConfigError

PAGE = "report.html"
"""The file by which the folder of a report is known."""

if TYPE_CHECKING:
    from percasym.report.load import RunRecord


def register(commands: Any) -> None:
    """Add the three commands to a parser's subcommands."""
    report = commands.add_parser("report", help="a study as a page, figures and tables")
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories, or folders that hold some")
    report.add_argument("--markdown", action="store_true", help="one Markdown table of all runs, a row for each cell")
    report.add_argument("--out", type=Path, metavar="DIR", help="folder to write to (default: report/ in the folder that holds all RUNs)")
    report.set_defaults(work=write_report)
    compare = commands.add_parser(
        "compare", help="the cells of a study against balance=none: gains, differences, which predictions hold; or two evaluations, paired"
    )
    compare.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories, or folders that hold some")
    compare.set_defaults(work=_compare)
    status = commands.add_parser("status", help="progress of a study: done, running with the time left, failed with its reason")
    status.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of studies, or run directories")
    status.set_defaults(work=_status)


def write_report(given: argparse.Namespace) -> None:
    """Print the tables of the runs below `given.runs` and write their page, figures and tables; with `markdown`, print one table only."""
    from percasym.report.comparison_table import console, print_comparisons, print_header
    from percasym.report.evaluations import evaluations_markdown, is_evaluation
    from percasym.report.publish import publish
    from percasym.report.study import measured
    from percasym.report.tables import run_table, runs_markdown

    roots = _without_reports(given.runs)
    runs = _loaded(roots)
    if given.markdown:
        print((evaluations_markdown if all(map(is_evaluation, runs)) else runs_markdown)(runs), end="")
        return
    out = console()
    for run in runs:
        out.print(f"{run.path}: {run.meta['status']}", soft_wrap=True, markup=False)
        if run.summary is not None:
            out.print(run_table(measured(run, run.summary)))
    folder = given.out or Path(os.path.commonpath([root.absolute() for root in roots])) / "report"
    if given.out is None and folder.is_symlink():
        raise ConfigError(f"{folder} is a symbolic link, so the report would be written elsewhere. Name the folder with --out.")
    try:
        published = publish(runs, folder)
    except (OSError, ValueError) as error:
        raise ConfigError(f"The report could not be written: {error}") from error
    for sentence in published.left_out:
        out.print(f"Left out: {sentence}", soft_wrap=True, markup=False)
    print_header(published.header, out)
    print_comparisons(published.comparisons, out)
    if published.not_compared:
        out.print(published.not_compared, soft_wrap=True, markup=False)
    if published.figure is not None:
        out.print(f"Figure: {published.figure}", soft_wrap=True, markup=False)
    out.print(f"Page: {published.page}", soft_wrap=True, markup=False)


def _compare(given: argparse.Namespace) -> None:
    from percasym.report.comparison_table import console, fitting, show
    from percasym.report.evaluations import is_evaluation, pair, paired_tables
    from percasym.report.study import study_name, study_of
    from percasym.report.words import counted

    roots = _without_reports(given.runs)
    runs = _loaded(roots)
    if any(is_evaluation(run) for run in runs):
        if len(runs) != 2 or len(roots) != 2:
            got = f"percasym compare pairs two evaluations, got {len(runs)}."
            raise ConfigError(f"{got} Name two evaluation directories, the reference first.")
        try:
            out = console()
            out.print(fitting(paired_tables(pair(*runs)), out))
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return
    try:
        shown = show(study_of(runs, study_name(runs, roots[0].absolute())), console())
    except ValueError as error:
        raise ConfigError(f"The runs could not be compared: {error}") from error
    if not shown:
        places, unfinished = ", ".join(map(str, given.runs)), sum(run.summary is None for run in runs)
        counts = f"{unfinished} of {counted(len(runs), 'run')} not finished"
        raise ConfigError(f"No finished run at or below {places} has test results ({counts}). `percasym status` says where they stand.")


def _without_reports(roots: Sequence[Path]) -> list[Path]:
    """The roots without reports: a shell expands multirun/STUDY/*/* to the files of STUDY/report too, after the first report."""
    beside = [root for root in roots if any((folder / PAGE).is_file() for folder in (root, root.parent))]
    reports = [root for root in beside if not any(root.rglob("meta.json"))]
    return [root for root in roots if root not in reports] or list(roots)


def _loaded(roots: Sequence[Path]) -> list[RunRecord]:
    """The runs at or below these folders, each once."""
    from percasym.report.load import load_runs

    return list({run.path.resolve(): run for root in roots for run in load_runs(root)}.values())


def _status(given: argparse.Namespace) -> None:
    import time

    from percasym.report.load import load_runs
    from percasym.report.status import status
    from percasym.runs.console import PlainConsole
    from percasym.runs.study import read_study

    for root in given.runs:
        planned = read_study(root)
        runs = load_runs(root) if not planned or any(root.rglob("config.yaml")) else []  # study.json exists before the first run does.
        PlainConsole().print(status(runs, planned, time.time()))
