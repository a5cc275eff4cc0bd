"""`percasym rollouts`: sample a checkpoint, reward what it says in every known way, and keep it, before any training is spent.

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

from percasym.app.recipes.rl import rollout_engine
from percasym.config.paradigm import Rl
from percasym.config.schema import ConfigError
from percasym.config.settings import Settings
from percasym.diagnosis.rollout_file import write_rollouts
from percasym.engine.precision import inference
from percasym.models.checkpoint import quiet
from percasym.rewards import registry
from percasym.runs.progress import ProgressBar
from percasym.training.collect import RolloutCollector
from percasym.training.rollout_records import recorded


@dataclass(slots=True, kw_only=True)
class InferenceOnlyEngine:
    """An engine that trains nothing: one model, one rank."""

    model: PreTrainedModel
    device: torch.device
    rank: int = 0
    num_ranks: int = 1

    @contextmanager
    def gathered_weights(self) -> Iterator[PreTrainedModel]:
        """The model, ready for decoding."""
        with inference(self.model, self.device):
            yield self.model

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum over one rank."""
        return values


def freeze(settings: Settings, *, num_prompts: int, split: str, device: torch.device, out: Path) -> int:
    """Write a group of rollouts for each of `num_prompts` prompts to `out`, with every reward and a_r; returns how many rollouts.

    Raises ConfigError for what cannot be sampled, and when `out` exists.
    """
    assert isinstance(settings.paradigm, Rl)
    assert settings.reward is not None
    assert settings.rollout is not None
    if out.exists():
        raise ConfigError(f"{out} exists. Give --out another name, or remove it.")
    if num_prompts < 1:
        raise ConfigError(f"--prompts must be at least 1, got {num_prompts}.")
    quiet()
    paradigm = replace(settings.paradigm, steps=1, batch_size=num_prompts, resample=0, diagnose_every=1)
    try:
        name, rewards = registry.measured_rewards(settings.reward, settings.task)
        model = settings.family.load()
        torch.nn.Module.to(model, device)
        rollouts = rollout_engine(settings, settings.rollout)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    out.parent.mkdir(parents=True, exist_ok=True)  # Where that is not possible, nothing is sampled.
    num_rollouts = num_prompts * paradigm.group_size
    with ProgressBar(2 * num_rollouts, "sampling", 0) as bar:  # From the picture, then with p* given.
        done = 0

        def advance(num_rows: int) -> None:
            nonlocal done
            done += num_rows
            bar.advance(done)

        sampler = RolloutCollector(
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
        experience = sampler.gather(0, 0.0)
    write_rollouts(out, recorded(experience, rewards))
    return num_rollouts
