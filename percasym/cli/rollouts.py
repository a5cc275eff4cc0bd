"""`percasym rollouts` and `percasym diagnose-rewards`: choose a reward before training, by its scores on rollouts of a checkpoint.

percasym rollouts task=sudoku model.path=RUN/final --out rollouts.jsonl
percasym diagnose-rewards rollouts.jsonl
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from percasym.cli.arguments import conf_folder
from percasym.config.schema import ConfigError


def register(commands: Any) -> None:
    """Add both commands to a parser's subcommands."""
    rollouts = commands.add_parser("rollouts", help="sample a checkpoint and score its rollouts by every reward, for diagnose-rewards")
    rollouts.add_argument("words", nargs="*", metavar="KEY=VALUE", help="as for train.py: task=sudoku model.path=RUN/final")
    rollouts.add_argument("--prompts", type=int, default=64, metavar="N", help="number of prompts (default: 64)")
    rollouts.add_argument(
        "--split",
        default="train_rl",
        choices=("train_sft", "train_rl", "test"),
        help="where they come from (default: train_rl, as in training)",
    )
    rollouts.add_argument(
        "--out", type=Path, default=Path("rollouts.jsonl"), metavar="FILE", help="file to write (default: rollouts.jsonl)"
    )
    rollouts.set_defaults(work=_rollouts)
    rewards = commands.add_parser("diagnose-rewards", help="which reward goes together with perception, from recorded rollouts")
    rewards.add_argument(
        "paths", nargs="+", type=Path, metavar="RUN_OR_ROLLOUTS", help="run directories (their last rollouts) or rollout files"
    )
    rewards.add_argument("--out", type=Path, metavar="DIR", help="folder of the figure and the tables (default: beside the rollouts)")
    rewards.set_defaults(work=_diagnose_rewards)


def _rollouts(given: argparse.Namespace) -> None:
    from percasym.config.paradigm import Rl
    from percasym.config.resolve import composed

    settings = composed(["paradigm=rl", *given.words], conf_folder())
    if not isinstance(settings.paradigm, Rl):
        raise ConfigError("percasym rollouts samples as paradigm=rl does, and this asks for paradigm=sft. Leave paradigm out.")
    from percasym.app.collect_rollouts import collect_rollouts
    from percasym.engine.ranks import choose_device  # Imports torch: only after the configuration was checked.
    from percasym.report.words import counted

    num_rollouts = collect_rollouts(settings, num_prompts=given.prompts, split=given.split, device=choose_device(), out=given.out)
    print(f"{counted(num_rollouts, 'rollout')} in {given.out}: percasym diagnose-rewards {given.out}")


def _diagnose_rewards(given: argparse.Namespace) -> None:
    from percasym.diagnosis.advice import advice, coupling_of_outcome, variance_advice, weight_advice
    from percasym.diagnosis.diagnose import diagnose
    from percasym.diagnosis.rollout_file import latest_rollouts, read_rollouts
    from percasym.report.rewards import reward_tables, rewards_csv, rewards_markdown, scatter
    from percasym.runs.console import PlainConsole
    from percasym.runs.records import write_whole

    files = [latest_rollouts(path) for path in given.paths]
    places = [(given.out or file.parent) / f"{file.stem}_rewards" for file in files]
    if len(set(places)) < len(places):
        raise ConfigError(
            f"--out={given.out} would hold one diagnosis only, for some of these files have the same name. Diagnose them one by one."
        )
    console = PlainConsole()
    for file, place in zip(files, places, strict=True):
        try:
            groups = read_rollouts(file)
            found = diagnose(groups)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place.with_suffix(".md"), rewards_markdown(found))
        write_whole(place.with_suffix(".csv"), rewards_csv(found))
        picture = scatter(groups, found, place.with_suffix(".png"))
        console.print(f"{file}:", soft_wrap=True)
        said = (variance_advice(found), advice(found), weight_advice(found), coupling_of_outcome(found))
        for part in (*reward_tables(found), *(line for paragraph in said if paragraph for line in (paragraph, ""))):
            console.print(part)
        console.print(f"Figure: {picture}; tables: {place.name}.md and {place.name}.csv beside it.", soft_wrap=True)
