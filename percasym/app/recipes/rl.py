"""Reinforcement learning, put together: prompts, rollouts and rewards into the training loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from percasym.app.evaluator import interleaved
from percasym.config.paradigm import Rl
from percasym.config.sampling import Native, Sampling, Vllm
from percasym.config.settings import Settings
from percasym.diagnosis.rollout_file import record_group
from percasym.diagnosis.stream import reward_statistics
from percasym.engine.base import Engine
from percasym.engine.precision import compute_dtype
from percasym.engine.ranks import Ranks
from percasym.objectives.token_nll import TokenNll
from percasym.rewards import registry
from percasym.rollout.base import RolloutEngine
from percasym.rollout.native import NativeRollouts
from percasym.runs.base import Run
from percasym.training.collect import RolloutCollector
from percasym.training.grpo import train
from percasym.training.progress import TrainingState
from percasym.training.rollout_batch import RolloutBatch, SpanAdvantages
from percasym.training.rollout_records import recorded
from percasym.types import Span

ROLLOUTS = "rollouts"
"""Name of the samples that hold recorded rollouts."""


class RlRecipe:
    """What `paradigm=rl` does between two evaluations."""

    split = "train_rl"

    def __init__(self, settings: Settings, device: torch.device, ranks: Ranks) -> None:
        """Raises ValueError for what cannot work together, before anything is loaded."""
        paradigm = settings.paradigm
        assert isinstance(paradigm, Rl)
        assert settings.reward is not None
        assert settings.rollout is not None
        paradigm.rows_per_forward(ranks.num_ranks)
        if settings.balance.needs == "hidden":
            raise ValueError("This balance compares the losses of two spans, and RL has two rewards over all tokens. Try balance=ngdiff.")
        if paradigm.kl and settings.balance.needs == "gramian":
            raise ValueError("paradigm.kl adds a third gradient, and a balance that compares two has no weight for it. Set paradigm.kl=0.")
        self._settings, self._paradigm, self._device, self._ranks = settings, paradigm, device, ranks
        self._rollouts = rollout_engine(settings, settings.rollout)
        self._sampling = settings.rollout
        self._name, self._rewards = registry.measured_rewards(settings.reward, settings.task)

    def train(self, engine: Engine, run: Run, evaluate: Callable[[int], None], checkpoint: Path | None) -> dict[str, Any]:
        """Train from `checkpoint`, or from the start, to the end; the summary gets nothing beside the evaluations."""
        settings, paradigm = self._settings, self._paradigm
        sampler = RolloutCollector(
            engine=engine,
            task=settings.task,
            family=settings.family,
            rollouts=self._rollouts,
            sampling=self._sampling,
            settings=paradigm,
            reward=self._name,
            rewards=self._rewards,
            split=self.split,
            seed=settings.seed,
            batch_size=settings.evaluation.batch_size,
        )

        def observe(done: int, experience: RolloutBatch, advantages: SpanAdvantages, weight: float) -> dict[str, float]:
            return self._observe(run, done, experience, advantages, weight)

        train(
            engine=engine,
            family=settings.family,
            gather=sampler.gather,
            observe=observe,
            balancer=settings.balance,
            settings=paradigm,
            max_new_tokens=self._sampling.max_new_tokens,
            run=run,
            evaluate=evaluate,
            reference=self._reference() if paradigm.kl else None,
            start=TrainingState.load(checkpoint) if checkpoint else None,
        )
        return {}

    def _observe(self, run: Run, done: int, experience: RolloutBatch, advantages: SpanAdvantages, weight: float) -> dict[str, float]:
        """Record a round where one is due; what rewards say about it, over all ranks."""
        seen, thought = advantages[Span.perception], advantages[Span.reasoning]
        pushed = seen + thought if self._paradigm.route else thought  # Where rewards are routed, the sum of both spans'.
        if self._paradigm.record_every and (done == 1 or done % self._paradigm.record_every == 0):
            groups = interleaved(
                self._ranks.gather(recorded(experience, self._rewards, pushed))
            )  # With pictures: only where they are kept.
            run.samples(ROLLOUTS, done, [record_group(group) for group in groups])
        verdicts = interleaved(self._ranks.gather(experience.verdicts()))
        return reward_statistics(
            [grades for grades, _, _ in verdicts],
            {name: [scores[name] for _, scores, _ in verdicts] for name in experience.scores},
            total=(weight * experience.perception + (1 - weight) * experience.outcome).tolist(),
            reasoning=[reasoning for _, _, reasoning in verdicts],
        ) | {"rollouts/resampled": self._ranks.all_reduce_sum(torch.tensor(float(experience.resampled))).item()}

    def _reference(self) -> TokenNll:
        """A second copy of the model that RL starts from, at rest; every rank holds the whole of it."""
        model = self._settings.family.load()
        torch.nn.Module.to(model, self._device)
        dtype = compute_dtype(self._settings.engine.precision, self._device)
        return TokenNll(model.eval().requires_grad_(False), dtype=dtype, temperature=self._sampling.temperature)


def rollout_engine(settings: Settings, sampling: Sampling) -> RolloutEngine:
    """Who samples. Raises ConfigError when vLLM is chosen and not installed."""
    if isinstance(sampling, Vllm):
        from percasym.rollout.vllm import VllmRollouts  # Imports vllm: only where it is chosen.

        return VllmRollouts(family=settings.family, sampling=sampling)
    assert isinstance(sampling, Native), f"{type(sampling).__name__} has no rollout engine"
    return NativeRollouts(family=settings.family, sampling=sampling)
