"""`percasym rollouts`: sample a checkpoint, score the rollouts with every reward and write them to a file, before any training.

percasym rollouts task=sudoku model=qwen3vl --prompts 64 --out rollouts.jsonl && percasym diagnose-rewards rollouts.jsonl
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from percasym.app.samplers import rollout_engine
from percasym.config.paradigm import Rl
from percasym.config.schema import ConfigError
from percasym.config.settings import Settings
from percasym.data.checks import with_checked_rows
from percasym.diagnosis.rollout_file import write_rollouts
from percasym.engine.precision import inference
from percasym.models.checkpoint import silence_transformers
from percasym.rewards import registry
from percasym.rollout.base import Gather
from percasym.runs.progress import ProgressBar
from percasym.tasks.base import require_rows
from percasym.training.collect import RolloutCollector


@dataclass(slots=True, kw_only=True)
class InferenceOnlyEngine:
    """What a rollout collector needs of an engine, for one model on one rank; it cannot train."""

    model: PreTrainedModel
    device: torch.device
    rank: int = 0
    num_ranks: int = 1

    @contextmanager
    def gathered_weights(self) -> Iterator[PreTrainedModel]:
        """The model in inference mode."""
        with inference(self.model, self.device):
            yield self.model

    @contextmanager
    def partitioned_weights(self) -> Iterator[tuple[PreTrainedModel, Gather | None]]:
        """The model in inference mode; nothing is partitioned."""
        with inference(self.model, self.device):
            yield self.model, None

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Returns `values`: there is one rank."""
        return values


def collect_rollouts(settings: Settings, *, num_prompts: int, split: str, device: torch.device, out: Path) -> int:
    """Write a group of rollouts for each of `num_prompts` prompts to `out`, with every reward and a_r; returns the number of rollouts.

    Raises ConfigError for a configuration that cannot be sampled, and when `out` exists.
    """
    settings = with_checked_rows(settings)
    assert isinstance(settings.paradigm, Rl)
    assert settings.reward is not None
    assert settings.rollout is not None
    if out.exists():
        raise ConfigError(f"{out} exists. Give --out another name, or remove it.")
    if num_prompts < 1:
        raise ConfigError(f"--prompts must be at least 1, got {num_prompts}.")
    silence_transformers()
    paradigm = replace(settings.paradigm, steps=1, batch_size=num_prompts, resample=0, diagnose_every=1)
    try:
        require_rows(settings.task, split, num_prompts, "--prompts")
        name, rewards = registry.measured_rewards(settings.reward, settings.task)
        model = settings.family.load()
        torch.nn.Module.to(model, device)
        rollouts = rollout_engine(settings, settings.rollout)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    out.parent.mkdir(parents=True, exist_ok=True)  # Before sampling, so that an unwritable place is found early.
    num_rollouts = num_prompts * paradigm.group_size
    with ProgressBar(2 * num_rollouts, "sampling", 0) as bar:  # Once from the picture, once with p* given.
        done = 0

        def advance(num_rows: int) -> None:
            nonlocal done
            done += num_rows
            bar.advance(done)

        collector = RolloutCollector(
            engine=InferenceOnlyEngine(model=model, device=device),
            task=settings.task,
            family=settings.family,
            rollouts=rollouts,
            sampling=settings.rollout,
            settings=paradigm,
            reward=name,
            rewards=rewards,
            split=split,
            seed=settings.seed,
            batch_size=settings.evaluation.batch_size,
            advance=advance,
        )
        batch = collector.collect(0, 0.0)
    write_rollouts(out, batch.records(rewards))
    return num_rollouts
