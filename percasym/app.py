"""The composition root: typed settings -> objects -> what changed in seeing and what in thinking.

The only place that reads the device and the environment. What only files and hardware can
tell is asked before the run directory is touched, so a refused run leaves nothing behind.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from transformers import PreTrainedModel

from percasym.data.generated import Generated
from percasym.engine.base import Engine
from percasym.engine.deepspeed import DeepSpeedEngine
from percasym.engine.precision import compute_dtype
from percasym.engine.torch import TorchEngine
from percasym.examiner import TEST, Examiner
from percasym.report.curves import curves
from percasym.report.load import load_run
from percasym.report.table import table
from percasym.runs.rundir import Run
from percasym.schema import ConfigError
from percasym.settings import DeepSpeedSettings, Settings, TorchSettings
from percasym.trainers.sft import Progress, TrainingDivergedError, train
from percasym.types import SampleKey

ENGINES: dict[type, type[Any]] = {DeepSpeedSettings: DeepSpeedEngine, TorchSettings: TorchEngine}
TRAIN = "train_sft"


def run(settings: Settings) -> None:
    """Carry out one run, or show the table of one that is finished already.

    Raises ConfigError when checkpoint, hardware, task or run directory do not allow it, or training diverges.
    """
    console = Console()
    began = time.perf_counter()
    if not settings.run.overwrite and (settings.path / "summary.json").exists() and open_run(settings).status == "done":
        console.print(f"{settings.path} is finished; run.overwrite=true would repeat it.", soft_wrap=True, highlight=False)
        return show(settings.path, console)
    device = choose_device()
    model = prepare(settings, device)
    directory = open_run(settings, about={"device": describe(device), "images": settings.family.images()})
    console.print(f"{settings.path} on {describe(device)}", soft_wrap=True, highlight=False)
    try:
        engine = ENGINES[type(settings.engine)](model, settings=settings.engine, paradigm=settings.paradigm, device=device)
        work(settings, directory, engine, began)
    except KeyboardInterrupt:
        directory.interrupted()
        raise
    except TrainingDivergedError as error:
        directory.failed(str(error))
        raise ConfigError(str(error)) from error
    except BaseException as error:
        directory.failed(f"{type(error).__name__}: {error}")
        raise
    return show(settings.path, console)


def work(settings: Settings, directory: Run, engine: Engine, began: float) -> None:
    """Evaluate, train, evaluate again and write the summary; an interrupted run goes on from its last checkpoint.

    The seconds in the summary are those of this session, from `began` on.
    """
    paradigm = settings.paradigm
    examiner = Examiner(settings, directory, engine.model)
    data = Generated(
        task=settings.task,
        family=settings.family,
        batch_size=paradigm.batch_size,
        micro_batch_size=paradigm.micro_batch_size,
        seed=settings.seed,
        split=TRAIN,
    )
    setup = time.perf_counter() - began
    if found := directory.latest_checkpoint():
        before, start = examiner.kept(0), Progress.load(found[1])
        engine.load(found[1])
    else:
        before, start = examiner.in_full(0, "evaluating before"), None
    trained, examined = time.perf_counter(), examiner.seconds
    share = train(
        engine=engine,
        batches=data.windows(start.step if start else 0, paradigm.steps),
        balancer=settings.balance,
        settings=paradigm,
        run=directory,
        evaluate=examiner.on_the_way,
        start=start,
    )
    trained = time.perf_counter() - trained - (examiner.seconds - examined)
    after = examiner.in_full(paradigm.steps, "evaluating after")
    directory.final(lambda path: settings.family.save(engine.model, path))
    curves(directory.path)
    seconds = {"setup": setup, "train": trained, "evaluate": examiner.seconds}
    results = {"before": before.metrics, "after": after.metrics, "gain": after.gain_over(before)}
    directory.finish({**results, "share": asdict(share), "seconds": seconds})


def prepare(settings: Settings, device: torch.device) -> PreTrainedModel:
    """Load the model, after making sure that the task has samples and that the family can read them."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(settings.seed)
    task, family = settings.task, settings.family
    try:
        compute_dtype(settings.engine.precision, device)
        for split, seed in ((TRAIN, settings.seed), (TEST, settings.evaluation.seed)):
            family.collate([family.row(task.sample(SampleKey(task=task.name, split=split, seed=seed, index=0)))])
        return family.load()
    except ValueError as error:
        raise ConfigError(str(error)) from error


def open_run(settings: Settings, about: Mapping[str, Any] | None = None) -> Run:
    """The run directory; refused when it holds another configuration."""
    try:
        return Run.open(settings.path, settings.record, settings.run.overwrite, about=about, tracker=settings.tracker)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def show(path: Path, console: Console) -> None:
    """The table of a finished run, and where its curves lie."""
    summary = load_run(path).summary
    assert summary is not None, f"{path} is finished and has no summary"
    console.print(table(summary))
    console.print(f"Curves: {path / 'curves.png'}", soft_wrap=True, highlight=False)


def choose_device() -> torch.device:
    """The accelerator where there is one; on a CPU, no more threads than this process may use."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(min(torch.get_num_threads(), usable))  # More threads than cores are 10x slower.
    os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed looks for an accelerator at import and warns when there is none.
    return torch.device("cpu")


def describe(device: torch.device) -> str:
    """The device in words.

    >>> describe(torch.device("cpu")).split(",")[0]
    'cpu'
    """
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    return f"cpu, {torch.get_num_threads()} threads"
