"""`percasym train` and `percasym demo`: train.py for an installed package, and the smallest comparison with its report.

percasym train task=sudoku balance=ngdiff        percasym demo
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from percasym.cli.report import write_report

START = ("-m", "percasym.launch.train")
STUDY = "PERCASYM_STUDY"
"""Environment variable: id of the process with which the started one ends (percasym.launch.sweep.cell_process)."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def register(commands: Any) -> None:
    """Add the command `demo` to a parser's subcommands, and a line of help for `train`."""
    commands.add_parser("train", help="train, as train.py of a checkout does: percasym train --help", add_help=False)
    demo = commands.add_parser("demo", help="train the packaged tiny model without and with balanced gradients, side by side, and report")
    demo.add_argument("words", nargs="*", metavar="KEY=VALUE", help="options of percasym train, for both: hydra.launcher.n_jobs=1")
    demo.set_defaults(work=_demo)


def train(words: Sequence[str]) -> int:
    """Replace this process by one that trains: signals and exit codes are its own."""
    os.execv(sys.executable, [sys.executable, *START, *words])


def _demo(given: argparse.Namespace) -> None:
    if code := _waited_for([sys.executable, *START, "experiment=demo", *given.words]):
        sys.exit(code)
    studies = [word.partition("=")[2] for word in given.words if word.startswith("study=")]
    write_report(argparse.Namespace(runs=[Path("multirun") / (studies or ["demo"])[-1]], markdown=False, out=None))


def _waited_for(command: Sequence[str]) -> int:
    """Run a command and return its exit code. A signal reaches it once: it has a process group of its own, and is sent what we get."""
    with subprocess.Popen(command, env=os.environ | {STUDY: str(os.getpid())}, process_group=0) as child:
        before = {number: signal.signal(number, lambda signum, frame: child.send_signal(signum)) for number in FORWARDED}
        try:
            return child.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
