"""Evaluate a checkpoint without training it, and write an evaluation directory.

    percasym evaluate multirun/main/sudoku-qwen3vl-sft-none/seed0 task=sudoku evaluation.num_samples=256

An evaluation directory is a run directory without training: config.yaml, meta.json (`kind: evaluation`), metrics.jsonl, summary.json and
samples/test_000000.jsonl. The same command again prints its table; other weights at the same path are refused, as another configuration is.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from percasym.app.collect_rollouts import InferenceOnlyEngine
from percasym.app.evaluator import Evaluator
from percasym.app.run_context import run_context
from percasym.app.samplers import greedy_engine, sampling_engine
from percasym.config.schema import ConfigError, Plain
from percasym.config.settings import Settings
from percasym.data.checks import data_fingerprint, with_checked_rows
from percasym.engine.checkpoint import load_weights
from percasym.engine.ranks import SINGLE_RANK, describe
from percasym.models.checkpoint import silence_transformers
from percasym.models.locate import fingerprint, source
from percasym.runs.identity import find
from percasym.runs.records import TEST
from percasym.tasks.base import data_summary
from percasym.types import SampleKey

RECORDED = ("study", "plugins", "task", "model", "evaluation")
"""Sections of the configuration that an evaluation depends on."""


def evaluate_checkpoint(settings: Settings, *, checkpoint: str, step: Path | None, device: torch.device) -> str | None:
    """Evaluate the model of `settings` on its test samples and write `settings.path`; returns a line about collected data, if any.

    - checkpoint: where its weights are, for the record.
    - step: a training checkpoint (`checkpoints/step_<n>`) whose weights replace those of the family.

    A finished evaluation of the same configuration and weights is left as it is.
    Raises ConfigError for a task, checkpoint or directory that does not allow it, Stopped after a signal.
    """
    began = time.perf_counter()
    record: dict[str, Plain] = {name: settings.record[name] for name in RECORDED}
    record["checkpoint"] = {"path": checkpoint, "fingerprint": fingerprint(checkpoint)}
    settings = replace(settings, record=record)
    data_now = partial(data_fingerprint, settings)
    if find(settings.path, record, overwrite=settings.run.overwrite, fingerprint=data_now).status == "finished":
        return None
    silence_transformers()
    torch.manual_seed(settings.seed)
    settings = with_checked_rows(settings)
    task, family = settings.task, settings.family
    about: dict[str, Any] = {"kind": "evaluation", "device": describe(device, SINGLE_RANK)}
    try:
        last = SampleKey(task=task.name, split=TEST, seed=settings.evaluation.seed, index=settings.evaluation.num_samples - 1)
        family.collate([family.prompt(task.sample(last).prompt)])
        if (origin := source(family.checkpoint)) is not None:
            about["checkpoint"] = origin
        about |= {"images": family.image_settings()} | ({} if (data := task.about()) is None else {"data": data})
        greedy = greedy_engine(settings)
        model = family.load()
        if step is not None:
            load_weights(step, model)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    torch.nn.Module.to(model, device)
    engine = InferenceOnlyEngine(model=model, device=device)
    setup_seconds = time.perf_counter() - began
    with run_context(settings, SINGLE_RANK, about=about) as directory:
        evaluator = Evaluator(settings, directory, engine, SINGLE_RANK, greedy, sampling_engine(settings, greedy))
        result = evaluator.evaluate_all(0, "evaluating")
        seconds = {"setup": setup_seconds, "evaluate": evaluator.seconds}
        directory.finish({"after": result.metrics, "num_puzzles": len(set(result.puzzles)), "seconds": seconds})
    return None if data is None else data_summary(data)
