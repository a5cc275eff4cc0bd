"""The recipe of paradigm=rl: prompts, rollouts and rewards for the training loop of `percasym.training.grpo`."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from percasym.app.samplers import rollout_engine
from percasym.config.paradigm import Rl
from percasym.config.settings import DeepSpeedSettings, Settings
from percasym.diagnosis.rollout_file import record_group
from percasym.diagnosis.stream import reward_statistics, weighted_rewards
from percasym.engine.base import Engine
from percasym.engine.deepspeed import sharded_reference
from percasym.engine.loading import loaded
from percasym.engine.precision import compute_dtype, with_factors
from percasym.engine.ranks import Ranks, interleaved
from percasym.engine.reference import Reference, whole_reference
from percasym.rewards import registry
from percasym.runs.base import Run
from percasym.runs.records import ROLLOUTS
from percasym.training.collect import RolloutCollector
from percasym.training.grpo import train
from percasym.training.progress import TrainingState
from percasym.training.rollout_batch import RolloutBatch, SpanAdvantages
from percasym.types import Span

PARTS = ("rollout", "reward", "update")
"""What a round consists of; each has its seconds in metrics.jsonl and in the summary."""


class RlRecipe:
    """Train with `paradigm=rl`."""

    split = "train_rl"

    def __init__(self, settings: Settings, device: torch.device, ranks: Ranks) -> None:
        """Raises ValueError for options that exclude each other, before any weight is loaded."""
        paradigm = settings.paradigm
        assert isinstance(paradigm, Rl)
        assert settings.reward is not None
        assert settings.rollout is not None
        paradigm.rows_per_forward(ranks.num_ranks)
        if settings.balance.needs == "hidden":
            raise ValueError("This balance compares the losses of two spans, and RL has two rewards over all tokens. Try balance=ngdiff.")
        if paradigm.kl and settings.balance.needs == "gramian":
            raise ValueError("paradigm.kl adds a third gradient, and a balance that compares two has no weight for it. Set paradigm.kl=0.")
        if settings.tokens is not None and paradigm.loss == "gspo":
            raise ValueError("tokens needs a loss of single tokens, and paradigm.loss=gspo has one of sequences. Use paradigm.loss=dapo.")
        self._settings, self._paradigm, self._device, self._ranks = settings, paradigm, device, ranks
        self.rollouts = rollout_engine(settings, settings.rollout, ranks.num_ranks)
        self._sampling = settings.rollout
        self._name, self._rewards = registry.measured_rewards(settings.reward, settings.task)

    def train(self, engine: Engine, run: Run, evaluate: Callable[[int], None], checkpoint: Path | None) -> dict[str, Any]:
        """Train from `checkpoint`, or from the start, to the last step; returns what its rounds taught and cost for the summary."""
        settings, paradigm = self._settings, self._paradigm
        collector = RolloutCollector(
            engine=engine,
            task=settings.task,
            family=settings.family,
            rollouts=self.rollouts,
            sampling=self._sampling,
            settings=paradigm,
            reward=self._name,
            rewards=self._rewards,
            split=self.split,
            seed=settings.seed,
            batch_size=settings.evaluation.batch_size,
            tokens=settings.tokens,
            reads_text=self._reads_text,
        )

        def observe(done: int, batch: RolloutBatch, advantages: SpanAdvantages, weight: float) -> dict[str, float]:
            return self._observe(run, done, batch, advantages, weight)

        train(
            engine=engine,
            family=settings.family,
            collect=collector.collect,
            observe=observe,
            balancer=settings.balance,
            settings=paradigm,
            max_new_tokens=self._sampling.max_new_tokens,
            run=run,
            evaluate=evaluate,
            reference=self._reference(engine) if paradigm.kl else None,
            start=TrainingState.load(checkpoint) if checkpoint else None,
        )
        return self._rounds(run)

    def _reads_text(self, step: int) -> bool:
        """Whether the strategy gives the prompts of a step p* as text, which only a schedule of stages does."""
        reads_text: Callable[[int, int], bool] | None = getattr(self._settings.balance, "reads_text", None)
        return reads_text is not None and reads_text(step, self._paradigm.steps)

    def _rounds(self, run: Run) -> dict[str, Any]:
        """`rounds` of the summary, over all sessions of the run: groups, those with an advantage, largest mismatch, seconds by part."""
        if not (taught := run.logged("rollouts/taught")):
            return {}  # Above rank 0, which writes no summary.
        found: dict[str, float] = {"groups": self._paradigm.batch_size * len(taught), "taught": sum(taught.values())}
        found["mismatch_max"] = max((run.logged("policy/mismatch") or {}).values(), default=math.nan)
        for part in PARTS:
            seconds = (run.logged(f"time/{part}_seconds") or {}).values()
            found[f"{part}_seconds"] = sum(seconds)
        return {"rounds": found}

    def _observe(self, run: Run, done: int, batch: RolloutBatch, advantages: SpanAdvantages, weight: float) -> dict[str, float]:
        """Record the rollouts of a step if due; returns statistics of the rewards over all ranks."""
        perception, reasoning = advantages[Span.perception], advantages[Span.reasoning]
        recorded = perception + reasoning if self._paradigm.route else reasoning  # Without routing both spans have the same advantages.
        if self._paradigm.records_after(done):
            groups = interleaved(self._ranks.gather(batch.records(self._rewards, recorded)))  # With pictures: recorded steps only.
            run.samples(ROLLOUTS, done, [record_group(group) for group in groups])
        verdicts = interleaved(self._ranks.gather(batch.verdicts()))
        statistics = reward_statistics(
            [grades for grades, _, _ in verdicts],
            {name: [scores[name] for _, scores, _ in verdicts] for name in batch.scores},
            total=(weight * batch.perception + (1 - weight) * batch.outcome).tolist(),
            reasoning=[reasoning for _, _, reasoning in verdicts],
        )
        return {
            **statistics,
            **weighted_rewards(batch.perception.tolist(), batch.outcome.tolist(), weight),
            "rollouts/resampled": self._ranks.all_reduce_sum(torch.tensor(float(batch.resampled))).item(),
            **({} if batch.gain is None else {"tokens/gain": batch.gain}),
            "rollouts/taught": float(batch.num_taught(advantages)),
        }

    def _reference(self, engine: Engine) -> Reference:
        """The reference of the KL divergence: the model that RL starts from, held a second time only where there are no adapters."""
        settings, device, ranks = self._settings, self._device, self._ranks
        if getattr(settings.family, "lora", None) is not None:
            return engine.nll_without_adapters
        model, temperature = loaded(settings.family, ranks), self._sampling.temperature
        if isinstance(settings.engine, DeepSpeedSettings) and settings.engine.zero_stage == 3:
            return sharded_reference(model, settings=settings.engine, device=device, ranks=ranks, temperature=temperature)
        dtype = compute_dtype(settings.engine.precision, device)
        model = with_factors(model, settings.engine, device)
        return whole_reference(model, dtype=dtype, device=device, ranks=ranks, temperature=temperature)
