"""The composition root: typed settings -> engine, recipe, evaluator and run directory -> a trained model and its gains.

The only place that reads the device and the environment. Checkpoint, task and hardware are checked before the run directory is written,
so a refused run leaves nothing behind.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from rich.console import Console
from transformers import PreTrainedModel

from percasym.app.evaluator import Evaluator
from percasym.app.recipes.rl import RlRecipe
from percasym.app.recipes.sft import SftRecipe
from percasym.app.run_context import run_context
from percasym.app.samplers import greedy_engine, sampling_engine
from percasym.config.paradigm import Rl, Sft
from percasym.config.sampling import Native
from percasym.config.schema import ConfigError
from percasym.config.settings import DeepSpeedSettings, Settings, TorchSettings
from percasym.data.checks import data_fingerprint, with_checked_rows
from percasym.engine.base import Engine
from percasym.engine.checkpoint import num_bytes, weight_bytes
from percasym.engine.deepspeed import deepspeed_engine, require_room_to_decode
from percasym.engine.heartbeat import FrozenRankError, Heartbeat
from percasym.engine.loading import loaded
from percasym.engine.precision import compute_dtype
from percasym.engine.ranks import Ranks, choose_device, describe, rank_environment
from percasym.engine.torch import torch_engine
from percasym.models.adapt import names_of
from percasym.models.checkpoint import config as source_config
from percasym.models.checkpoint import silence_transformers
from percasym.models.locate import source
from percasym.models.stored import stored_dtype
from percasym.report.curves import curves
from percasym.report.load import load_run
from percasym.report.tables import run_table
from percasym.runs.base import Run
from percasym.runs.console import PlainConsole
from percasym.runs.identity import find, mark_ended
from percasym.runs.records import TEST
from percasym.runs.space import Needs
from percasym.tasks.base import data_summary
from percasym.types import SampleKey

ENGINES: dict[type, Callable[..., Engine]] = {DeepSpeedSettings: deepspeed_engine, TorchSettings: torch_engine}
RECIPES: dict[type, Callable[..., Any]] = {Sft: SftRecipe, Rl: RlRecipe}
SECONDS_TO_REPORT = 2.0
"""What the other ranks wait for the first one to say which rank is frozen: the launcher ends all once one has ended."""


class Recipe(Protocol):
    """How a paradigm trains: its data and its loop."""

    split: str
    """Split of the training samples."""

    def train(self, engine: Engine, run: Run, evaluate: Callable[[int], None], checkpoint: Path | None) -> Mapping[str, Any]:
        """Train from `checkpoint`, or from the start, to the last step; returns the entries of the summary beside the evaluations."""
        ...


def run(settings: Settings, report: Callable[[Exception], object] | None = None) -> None:
    """This rank's part of one run. A finished run is not repeated: its table is printed.

    Where another rank is frozen, a thread ends this process, after it has called `report` with the reason (None: stderr).
    Raises ConfigError when checkpoint, hardware, task or run directory do not allow it, or training diverges; Stopped after a signal.
    """
    began = time.perf_counter()
    place = rank_environment(os.environ)
    os.environ.update(place.address)
    device = choose_device(place.local_rank)
    ranks = Ranks.join(place.rank, place.num_ranks, device)
    with Heartbeat(
        ranks.store,
        rank=ranks.rank,
        num_ranks=ranks.num_ranks,
        limit_seconds=60 * settings.launch.heartbeat_minutes,
        on_frozen=partial(end_frozen, settings.path, report),
        hosted_by_rank_0=place.hosts_store,
    ) as heartbeat:
        _run(settings, device, ranks, heartbeat, began)


def _run(settings: Settings, device: torch.device, ranks: Ranks, heartbeat: Heartbeat, began: float) -> None:
    console = PlainConsole(quiet=ranks.rank > 0)
    fingerprint = partial(data_fingerprint, settings)
    found = ranks.broadcast(lambda: find(settings.path, settings.record, overwrite=settings.run.overwrite, fingerprint=fingerprint))
    if found.status == "finished":
        console.print(f"{settings.path} is finished; run.overwrite=true would repeat it.", soft_wrap=True, highlight=False)
        return show(settings.path, console)
    settings = with_checked_rows(settings)
    engine, recipe = prepare(settings, device, ranks)
    where = describe(device, ranks)
    about: dict[str, Any] = {"device": where, "images": settings.family.image_settings()}
    if (origin := source(settings.family.checkpoint)) is not None:
        about["checkpoint"] = origin
    if (data := settings.task.about()) is not None:
        about["data"] = data
        console.print(data_summary(about["data"]), soft_wrap=True, highlight=False, markup=False)
    final = stored_dtype(engine.model, source_config(str(engine.model.name_or_path)))
    about["final"] = str(final).removeprefix("torch.")
    with run_context(settings, ranks, about=about, needs=disk_needs(settings, engine.model, final)) as directory:
        heartbeat.step = lambda: directory.last_step
        console.print(f"{settings.path} on {where}", soft_wrap=True, highlight=False)
        for remark in directory.remarks:
            console.print(remark, soft_wrap=True, highlight=False, markup=False)
        train_and_evaluate(settings, directory, engine, recipe, ranks, began, final)
    ranks.leave()
    return show(settings.path, console)


def end_frozen(path: Path, report: Callable[[Exception], object] | None, error: FrozenRankError, first: bool) -> NoReturn:
    """End this process, whose own work may wait for the frozen ranks; one rank, the `first`, writes why into the run directory."""
    try:
        error.add_note("This rank was at:\n" + "".join(traceback.format_stack(sys._current_frames()[threading.main_thread().ident or 0])))
        if not first:
            time.sleep(SECONDS_TO_REPORT)
        if report is not None:
            report(error)
        elif first:
            print(f"{error}. The same command resumes.", file=sys.stderr, flush=True)
        if first:
            mark_ended(path, "failed", reason=str(error))
    finally:
        os._exit(1)  # No exception can reach the main thread while it is blocked in a collective.


def train_and_evaluate(
    settings: Settings, directory: Run, engine: Engine, recipe: Recipe, ranks: Ranks, began: float, final: torch.dtype
) -> None:
    """Evaluate, train, evaluate again and write the summary; an interrupted run continues from its last checkpoint.

    The seconds in the summary are those of this session, from `began` on; final/ is written in the format `final`.
    """
    greedy = greedy_engine(settings, getattr(recipe, "rollouts", None), ranks.num_ranks)
    evaluator = Evaluator(settings, directory, engine, ranks, greedy, sampling_engine(settings, greedy))
    setup_seconds = time.perf_counter() - began
    latest = ranks.broadcast(directory.latest_checkpoint)
    if latest:
        before = evaluator.recorded(0)
        step, path = latest
        engine.load(path)
        if evaluator.is_missing(step):  # The run was interrupted during the evaluation after this step.
            evaluator.evaluate_curve(step)
    else:
        before = evaluator.taken_over(0) or evaluator.evaluate_all(0, "evaluating before")
    began_training, evaluated_seconds = time.perf_counter(), evaluator.seconds
    training_summary = recipe.train(engine, directory, evaluator.evaluate_curve, latest[1] if latest else None)
    train_seconds = time.perf_counter() - began_training - (evaluator.seconds - evaluated_seconds)
    after = evaluator.evaluate_all(settings.paradigm.steps, "evaluating after")
    with engine.whole_weights(final) as model:
        directory.final(lambda path: settings.family.save(model, path))
    results = {"before": before.metrics, "after": after.metrics, "gain": after.gain_over(before)}
    seconds = {"setup": setup_seconds, "train": train_seconds, "evaluate": evaluator.seconds}
    directory.finish({**results, "num_puzzles": len(set(after.puzzles)), **training_summary, "seconds": seconds})


def prepare(settings: Settings, device: torch.device, ranks: Ranks) -> tuple[Engine, Recipe]:
    """Engine and recipe, after checking that the task has samples, that the family can encode them, and that the ranks can share a step."""
    silence_transformers()
    torch.manual_seed(settings.seed)
    task, family = settings.task, settings.family
    try:
        compute_dtype(settings.engine.precision, device)
        recipe: Recipe = RECIPES[type(settings.paradigm)](settings, device, ranks)
        last_test = settings.evaluation.num_samples - 1
        for split, seed, last in ((recipe.split, settings.seed, 0), (TEST, settings.evaluation.seed, last_test)):
            family.collate([family.row(task.sample(SampleKey(task=task.name, split=split, seed=seed, index=last)))])
        build = ENGINES[type(settings.engine)]
        model = loaded(family, ranks)
        if isinstance(settings.engine, DeepSpeedSettings) and decodes(settings):
            require_room_to_decode(model, settings.engine, device)
        engine = build(
            model,
            settings=settings.engine,
            paradigm=settings.paradigm,
            device=device,
            ranks=ranks,
            temperature=settings.rollout.temperature if settings.rollout else 1.0,  # Of its log-probabilities.
            vision=trained_vision(model, settings),
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if ranks.num_ranks > 1:
        torch.manual_seed(settings.seed * ranks.num_ranks + ranks.rank)  # Ranks train on different rows and need different dropout masks.
    return engine, recipe


def decodes(settings: Settings) -> bool:
    """Whether the model itself answers or samples in this run, rather than vLLM."""
    return settings.evaluation.engine == "native" or isinstance(settings.rollout, Native)


def disk_needs(settings: Settings, model: PreTrainedModel, final: torch.dtype) -> Needs:
    """What the run will write, with final/ in that format."""
    num_checkpoints = settings.paradigm.num_checkpoints
    return Needs(
        checkpoint_bytes=num_bytes(model),
        num_checkpoints=num_checkpoints,
        num_kept=settings.run.keep_last + settings.run.keep_best if settings.run.keep_last else num_checkpoints,
        final_bytes=weight_bytes(model, final.itemsize),
    )


def trained_vision(model: PreTrainedModel, settings: Settings) -> list[str]:
    """Names of the trained parameters of the vision tower, for `paradigm.lr_vision`.

    Raises ConfigError when it is set and there are none.
    """
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    vision = [name for name in names_of(model, "vision", settings.family.parts) if name in trained]
    if settings.paradigm.lr_vision is not None and not vision:
        given = f"paradigm.lr_vision={settings.paradigm.lr_vision} is for a trained vision tower, and none of its weights is trained"
        raise ConfigError(f"{given}. Leave it out, or train the tower: model.freeze=[], or model.lora.targets with vision.")
    return vision


def show(path: Path, console: Console) -> None:
    """Draw the curves of a finished run if they are missing; print its table."""
    if console.quiet:
        return
    if not (path / "curves.png").exists():
        curves(path)
    summary = load_run(path).summary
    assert summary is not None, f"{path} is finished and has no summary"
    console.print(run_table(summary))
    console.print(f"Curves: {path / 'curves.png'}", soft_wrap=True, highlight=False)
