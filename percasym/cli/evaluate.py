"""`percasym evaluate`: a, a_p, a_r and faithfulness of any checkpoint with 95 % intervals, without training.

percasym evaluate multirun/main/sudoku-qwen3vl-sft-none/seed0
percasym evaluate CHECKPOINT task=graph_coloring task.nodes=[5,6] evaluation.num_samples=256
percasym evaluate CHECKPOINT task=mm_helix task.path=MM-HELIX.tsv        # collected data: all test rows, unless num_samples is given
percasym compare multirun/evaluations/A multirun/evaluations/B
"""

from __future__ import annotations

import argparse
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from percasym.cli.arguments import conf_folder
from percasym.config.schema import ConfigError

if TYPE_CHECKING:
    from percasym.config.settings import Settings

KEY_VALUE = re.compile(r"[A-Za-z_~+][\w./@]*=.*", re.DOTALL)
STUDY = "evaluations"
"""Study of an evaluation where the command names none."""


def register(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    evaluate = commands.add_parser("evaluate", help="a, a_p, a_r and faithfulness of a checkpoint, without training")
    evaluate.add_argument(
        "words", nargs="*", metavar="CHECKPOINT | KEY=VALUE",
        help="a run or checkpoint directory, or a hub id (default: the packaged model); options as for train.py: task=sudoku",
    )  # fmt: skip
    evaluate.add_argument("--out", type=Path, metavar="DIR", help="evaluation directory (default: multirun/<study>/<task and checkpoint>)")
    evaluate.set_defaults(work=_evaluate)


def _evaluate(given: argparse.Namespace) -> None:
    from percasym.config.resolve import composed
    from percasym.runs.checkpoint import run_of_checkpoint, trained_model
    from percasym.runs.console import PlainConsole
    from percasym.runs.records import option_name

    named = [word for word in given.words if not KEY_VALUE.fullmatch(word)]
    if len(named) > 1:
        raise ConfigError(f"percasym evaluate takes one checkpoint, got {', '.join(named)}. Evaluate them one after the other.")
    words = [word for word in given.words if word not in named]
    if refused := [word for word in words if word.partition("=")[0] in ("paradigm", "balance", "tokens", "reward", "rollout")]:
        raise ConfigError(f"{refused[0]} is an option of training, and percasym evaluate does not train. Leave it out.")
    folder = Path(named[0]).expanduser() if named else Path()
    run = run_of_checkpoint(folder) if named else None
    if named and run is None:
        words = [*_model(str(trained_model(folder)) if folder.is_dir() else named[0], words), *words]
    if not any(word.startswith("study=") for word in words):
        words.append(f"study={STUDY}")
    settings = composed(words, conf_folder())
    if run is not None:
        settings = _of_run(settings, run, words)
    if not any(word.lstrip("+").startswith("evaluation.num_samples=") for word in words):
        settings = _all_rows(settings)
    from percasym.app.evaluate_checkpoint import evaluate_checkpoint
    from percasym.engine.ranks import choose_device  # Imports torch: only after the configuration was checked.

    model: Any = settings.family
    weights = str(folder / "model") if run is not None else model.checkpoint
    task = option_name(settings.record, "task") or settings.task.name
    path = given.out or Path("multirun") / settings.study / cell_name(task, model, named[0] if named else "packaged")
    settings = replace(settings, path=path)
    data = evaluate_checkpoint(settings, checkpoint=weights, step=folder if run is not None else None, device=choose_device())
    from percasym.report.load import load_run
    from percasym.report.tables import run_table

    console = PlainConsole()
    if data:
        console.print(data, soft_wrap=True)
    summary = load_run(path).summary
    assert summary is not None, f"{path} is finished and has no summary"
    console.print(run_table(summary))
    console.print(f"Evaluation: {path}", soft_wrap=True)


def cell_name(task: str, family: object, checkpoint: str) -> str:
    """Directory name of an evaluation: task, family, and the last parts of the checkpoint's path.

    >>> cell_name("sudoku", 0, "multirun/main/sudoku-qwen3vl-sft-none/seed0/final")
    'sudoku-int-evaluate-sudoku_qwen3vl_sft_none_seed0'
    """
    parts = [part for part in Path(checkpoint).parts if part not in ("final", "/", "..", ".", "checkpoints")]
    own = re.sub(r"[^A-Za-z0-9.]+", "_", "_".join(parts[-2:])).strip("_") or "checkpoint"
    return f"{task}-{type(family).__name__.lower()}-evaluate-{own}"


def _model(checkpoint: str, words: list[str]) -> list[str]:
    """The options that choose this checkpoint: its family where the command names none, and its path.

    Raises ConfigError for a checkpoint whose family is neither named nor known.
    """
    from percasym.models.locate import family_of

    path = f"++model.path='{checkpoint}'"
    if any(word.startswith("model=") for word in words):
        return [path]
    family = family_of(checkpoint)
    if family is None:
        raise ConfigError(
            f"{checkpoint} is neither a directory with the config.json of a known family nor a released model. "
            "Give a run or checkpoint directory, or name the family: model=qwen3vl, model=internvl35, or model=auto for any other."
        )
    return [f"model={family}", path]


def _all_rows(settings: Settings) -> Settings:
    """The settings with all test rows of collected data as samples; generated tasks keep their number.

    Raises ConfigError for a row that cannot be read.
    """
    from percasym.data.checks import with_checked_rows

    try:
        about = with_checked_rows(settings).task.about()
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if about is None or not (num := about["rows"].get("test", 0)):
        return settings
    section: Any = settings.record["evaluation"]
    record = {**settings.record, "evaluation": {**section, "num_samples": num}}
    return replace(settings, evaluation=replace(settings.evaluation, num_samples=num), record=record)


def _of_run(settings: Settings, run: Path, words: list[str]) -> Settings:
    """The settings with the model of a run, for one of its training checkpoints."""
    from percasym.config.plugins import plugin, recorded, trust
    from percasym.report.load import load_run

    if chosen := [word for word in words if word.partition("=")[0].partition(".")[0] == "model"]:
        raise ConfigError(f"{chosen[0]} is not needed: a checkpoint of {run} has the model of that run. Leave it out.")
    family = plugin("model", load_run(run).config.get("model"), None, trust(settings.plugins))  # Packages that the run names are not.
    return replace(settings, family=family, record={**settings.record, "model": recorded(family)})
