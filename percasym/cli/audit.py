"""`percasym audit`: perception's share of tokens, loss and gradient in the first step, without training.

percasym audit task=jsonl task.path=rows.jsonl --samples 64
percasym audit task=sudoku --evaluation multirun/evaluations/sudoku-qwen3vl-evaluate-packaged
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.table import Table

    from percasym.config.settings import Settings
    from percasym.training.audit import Audit

from percasym.cli.arguments import conf_folder
from percasym.config.schema import ConfigError


def register(commands: Any) -> None:
    """Add the command to a parser's subcommands."""
    audit = commands.add_parser("audit", help="perception's share of tokens, loss and gradient, without training")
    audit.add_argument("words", nargs="*", metavar="KEY=VALUE", help="as for train.py: task=jsonl task.path=FILE model.path=DIR")
    audit.add_argument("--samples", type=int, metavar="N", help="training samples to look at (default: 64, or all rows if fewer)")
    audit.add_argument(
        "--evaluation",
        type=Path,
        metavar="DIR",
        help="a percasym evaluate of this model, or a run that began with it: says what a right percept is worth",
    )
    audit.set_defaults(work=_audit)


def _audit(given: argparse.Namespace) -> None:
    from percasym.config.resolve import composed
    from percasym.runs.console import PlainConsole

    settings = composed(given.words, conf_folder())
    answers = None if given.evaluation is None else graded_answers(given.evaluation, settings)
    from percasym.app.audit import audit
    from percasym.engine.ranks import choose_device  # Imports torch: only after the configuration was checked.
    from percasym.training.audit import Coupling

    found = audit(settings, num_samples=given.samples, device=choose_device(), coupling=None if answers is None else Coupling.of(answers))
    console = PlainConsole()
    if found.data:
        console.print(found.data, soft_wrap=True)
    console.print(table(found))
    if (caution := found.caution()) is not None:
        console.print(caution, soft_wrap=True)
    console.print(found.advice(), soft_wrap=True)


def graded_answers(path: Path, settings: Settings) -> list[tuple[bool, bool]]:
    """Whether percept and answer are right, of each answer that an evaluation, or a run before its training, recorded.

    Raises ConfigError for a folder without graded answers, and for those of another model or to another task.
    """
    from percasym.report.load import load_run, verdicts

    try:
        run = load_run(path)
        grades = run.grades_before or {}
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
    if found := _difference(run.config, settings):
        raise ConfigError(f"The answers in {path} have {found}. Evaluate the same model on the same task.")
    answers = verdicts(grades)
    if not answers:
        raise ConfigError(f"{path} has no graded answers. Name the folder that percasym evaluate wrote for this model.")
    return answers


DEMONSTRATIONS = ("task.verbosity", "task.variety_frac", "task.reflect_frac", "task.terse_frac")
"""Options that shape demonstrations alone; a model is evaluated on the same samples whatever they are."""


def _difference(theirs: Mapping[str, Any], settings: Settings) -> str | None:
    """The first option of task or model in which an evaluation differs from an audit, as `KEY=VALUE where this audit has VALUE`."""
    from percasym.config.plugins import current
    from percasym.runs.identity import differing

    ours: Any = settings.record
    theirs = current(theirs, ours.get("plugins", ()))
    compared = {"task": [*ours["task"]], "model": ["_target_", "size", "path"]}
    if weights := (theirs.get("checkpoint") or {}).get("path"):  # Of an evaluation, which may be of a checkpoint within a run.
        mine = settings.family.checkpoint
        if str(weights) != str(mine):
            return f"weights of {weights} where this audit has {mine}"
        compared["model"] = ["_target_"]
    held, wanted = (
        {section: {key: (record.get(section) or {}).get(key) for key in keys} for section, keys in compared.items()}
        for record in (theirs, ours)
    )
    if (found := differing(held, wanted, skipped=DEMONSTRATIONS)) is None:
        return None
    key, there, here = found
    return f"{key}={there} where this audit has {here}"


def table(found: Audit) -> Table:
    """Tokens, loss and gradient of both spans, and perception's share of each under the token average."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from percasym.models.adapt import PARTS
    from percasym.report.words import counted

    stats, share = found.stats, found.share
    assert stats.losses is not None and stats.gramian is not None
    shown = Table(box=SIMPLE_HEAD, title=f"first step on {counted(found.num_samples, 'sample')}", title_justify="left")
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
