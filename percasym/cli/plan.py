"""`percasym plan`: memory and compute that a configuration needs, computed without weights.

percasym plan scale=paper model=internvl35 engine.zero_stage=3
"""

from __future__ import annotations

import argparse
from typing import Any

from percasym.cli.arguments import conf_folder


def register(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    plan = commands.add_parser("plan", help="what a configuration will cost: parameters, memory of each GPU, work of a step")
    plan.add_argument("words", nargs="*", metavar="KEY=VALUE", help="as for train.py: scale=paper model=internvl35 engine.zero_stage=3")
    plan.add_argument("--gpu-gb", type=float, default=80.0, metavar="GB", help="memory of one GPU in 10^9 bytes (default: 80)")
    plan.set_defaults(work=_plan)


def _plan(given: argparse.Namespace) -> None:
    from percasym.config.resolve import composed
    from percasym.plan.plan import plan, table
    from percasym.runs.console import PlainConsole

    settings = composed(given.words, conf_folder())
    PlainConsole().print(table(plan(settings, gpu_gb=given.gpu_gb)), soft_wrap=True)
