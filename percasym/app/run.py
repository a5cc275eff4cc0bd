"""The composition root: typed settings -> objects -> what changed in seeing and what in thinking.

The only place that reads the device and the environment. What only files and hardware can
tell is asked before the run directory is touched, so a refused run leaves nothing behind.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.console import Console

from percasym.app.evaluator import TEST, Evaluator
from percasym.app.recipes.rl import RlRecipe
from percasym.app.recipes.sft import SftRecipe
from percasym.app.run_context import custody, finished
from percasym.config.paradigm import Rl, Sft
from percasym.config.schema import ConfigError
from percasym.config.settings import DeepSpeedSettings, Settings, TorchSettings
from percasym.engine.base import Engine
from percasym.engine.checkpoint import num_bytes
from percasym.engine.deepspeed import deepspeed_engine
from percasym.engine.device import choose_device, describe
from percasym.engine.environment import world
from percasym.engine.precision import compute_dtype
from percasym.engine.ranks import Ranks
from percasym.engine.torch import torch_engine
from percasym.models.checkpoint import quiet
from percasym.report.curves import curves
from percasym.report.load import load_run
from percasym.report.table import table
from percasym.runs.base import Run
from percasym.tasks.base import data_summary
from percasym.types import SampleKey

ENGINES: dict[type, Callable[..., Engine]] = {DeepSpeedSettings: deepspeed_engine, TorchSettings: torch_engine}
RECIPES: dict[type, Callable[..., Any]] = {Sft: SftRecipe, Rl: RlRecipe}


class Recipe(Protocol):
    """A paradigm at work."""

    split: str
    """Where its samples come from."""

    def train(self, engine: Engine, run: Run, evaluate: Callable[[int], None], checkpoint: Path | None) -> Mapping[str, Any]:
        """Train from `checkpoint`, or from the start, to the end; what the summary says of it beside the evaluations."""
        ...


def run(settings: Settings) -> None:
    """This rank's part of one run; where the run is finished already, show its table.

    Raises ConfigError when checkpoint, hardware, task or run directory do not allow it, or training diverges; Stopped when a signal asks.
    """
    began = time.perf_counter()
    place = world(os.environ)
    device = choose_device(place.local_rank)
    ranks = Ranks.join(place.rank, place.num_ranks, device)
    console = Console(quiet=ranks.rank > 0)
    if ranks.broadcast(lambda: finished(settings)):
        console.print(f"{settings.path} is finished; run.overwrite=true would repeat it.", soft_wrap=True, highlight=False)
        return show(settings.path, console)
    engine, recipe = prepare(settings, device, ranks)
    where = describe(device, ranks)
    about: dict[str, Any] = {"device": where, "images": settings.family.images()}
    if (data := settings.task.about()) is not None:
        about["data"] = data
        console.print(data_summary(about["data"]), soft_wrap=True, highlight=False, markup=False)
    with custody(settings, ranks, about=about, checkpoint_bytes=num_bytes(engine.model)) as directory:
        console.print(f"{settings.path} on {where}", soft_wrap=True, highlight=False)
        for remark in directory.remarks:
            console.print(remark, soft_wrap=True, highlight=False, markup=False)
        work(settings, directory, engine, recipe, ranks, began)
    ranks.leave()
    return show(settings.path, console)


def work(settings: Settings, directory: Run, engine: Engine, recipe: Recipe, ranks: Ranks, began: float) -> None:
    """Evaluate, train, evaluate again and write the summary; an interrupted run goes on from its last checkpoint.

    The seconds in the summary are those of this session, from `began` on.
    """
    evaluator = Evaluator(settings, directory, engine, ranks)
    setup = time.perf_counter() - began
    if found := ranks.broadcast(directory.latest_checkpoint):
        before = evaluator.kept(0)
        engine.load(found[1])
        if evaluator.missed(found[0]):  # The run was asked to stop while it evaluated, after this very step.
            evaluator.on_the_way(found[0])
    else:
        before = evaluator.in_full(0, "evaluating before")
    trained, examined = time.perf_counter(), evaluator.seconds
    learned = recipe.train(engine, directory, evaluator.on_the_way, found[1] if found else None)
    trained = time.perf_counter() - trained - (evaluator.seconds - examined)
    after = evaluator.in_full(settings.paradigm.steps, "evaluating after")
    with engine.gathered_weights() as model:
        directory.final(lambda path: settings.family.save(model, path))
    seconds = {"setup": setup, "train": trained, "evaluate": evaluator.seconds}
    results = {"before": before.metrics, "after": after.metrics, "gain": after.gain_over(before)}
    directory.finish({**results, "num_puzzles": len(set(after.puzzles)), **learned, "seconds": seconds})


def prepare(settings: Settings, device: torch.device, ranks: Ranks) -> tuple[Engine, Recipe]:
    """Engine and recipe, after making sure that the task has samples, that the family can read them, and that the ranks can share them."""
    quiet()
    torch.manual_seed(settings.seed)
    task, family = settings.task, settings.family
    try:
        compute_dtype(settings.engine.precision, device)
        recipe: Recipe = RECIPES[type(settings.paradigm)](settings, device, ranks)
        last_test = settings.evaluation.num_samples - 1
        for split, seed, last in ((recipe.split, settings.seed, 0), (TEST, settings.evaluation.seed, last_test)):
            family.collate([family.row(task.sample(SampleKey(task=task.name, split=split, seed=seed, index=last)))])
        build = ENGINES[type(settings.engine)]
        engine = build(
            family.load(),
            settings=settings.engine,
            paradigm=settings.paradigm,
            device=device,
            ranks=ranks,
            temperature=settings.rollout.temperature if settings.rollout else 1.0,  # Of the log-probabilities that it gives.
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if ranks.num_ranks > 1:
        torch.manual_seed(settings.seed * ranks.num_ranks + ranks.rank)  # Ranks see other rows, and drop other activations.
    return engine, recipe


def show(path: Path, console: Console) -> None:
    """Draw the curves of a finished run where they are missing; print its table."""
    if console.quiet:
        return
    if not (path / "curves.png").exists():
        curves(path)
    summary = load_run(path).summary
    assert summary is not None, f"{path} is finished and has no summary"
    console.print(table(summary))
    console.print(f"Curves: {path / 'curves.png'}", soft_wrap=True, highlight=False)
