"""Group-relative policy optimisation with R = w a_p + (1 - w) a.

Unlike an ordinary GRPO loop it keeps the two rewards apart until the advantages are made, so a strategy can move w,
balance the gradients of both, or send each reward to the tokens that earned it; and it logs why an outcome reward
teaches reasoning and not perception:

    python train.py paradigm=rl balance=fixed balance.weight=0.3
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from percasym.balance.base import Balancer, BalanceState, SpanStats
from percasym.config.paradigm import Rl
from percasym.engine.base import Engine, StepInfo
from percasym.models.base import Family
from percasym.objectives.policy import clipped_policy_loss, kl_k3, normalisers
from percasym.objectives.token_nll import TokenNll, supervised
from percasym.runs.base import Run
from percasym.training.progress import TrainingState, diverged, divergence, settle
from percasym.training.rollout_batch import MicroBatch, RolloutBatch, SpanAdvantages
from percasym.training.schedule import learning_rate
from percasym.types import UNSUPERVISED, Span


def train(
    *,
    engine: Engine,
    family: Family,
    gather: Callable[[int, float], RolloutBatch],
    observe: Callable[[int, RolloutBatch, SpanAdvantages, float], Mapping[str, float]],
    balancer: Balancer,
    settings: Rl,
    max_new_tokens: int,
    run: Run,
    evaluate: Callable[[int], None],
    reference: TokenNll | None = None,
    start: TrainingState | None = None,
) -> None:
    """Sample and learn until `settings.steps` rounds are done.

    `gather(step, w)` samples this rank's prompts of a step, counted from 0; `observe(done, round, advantages, w)` records a round and gives
    the numbers that rewards say about it. `reference` is the model that the KL divergence is taken to.

    Raises TrainingDivergedError when the loss or its gradient is not finite, Stopped when that was asked from outside.
    """
    state = start or TrainingState(step=0, balance=balancer.start(), share=None)
    balance = state.balance
    with run.progress(settings.steps, "training", start=state.step) as bar:
        for step in range(state.step, settings.steps):
            began = time.perf_counter()
            # The ordinary objective of RL is the outcome alone: among its terms, none is perception's.
            stats = SpanStats(step=step, num_steps=settings.steps, counts=(0, settings.step_rows))
            if balancer.needs == "counts":
                balance = balancer.step(balance, stats)
            experience = gather(step, balance.weight)
            gathered = time.perf_counter()
            stats = replace(stats, losses=shortfall(experience))
            counts = tuple(engine.all_reduce_sum(experience.counts(settings)).tolist())  # (N_p, N_r) of the whole step
            learner = Learner(
                engine=engine, family=family, settings=settings, counts=counts, max_new_tokens=max_new_tokens, reference=reference
            )
            logged: dict[str, float] = {}
            for epoch in range(settings.epochs):
                balance, stats, info, learned = learner.update(experience, balancer, balance, stats, step)
                logged |= {f"{name}/first" if epoch == 0 and settings.epochs > 1 else name: value for name, value in learned.items()}
                if not math.isfinite(info.grad_norm):  # Nothing was applied, and nothing will be.
                    break
            weight = balance.weight
            if balancer.needs == "losses":
                balance = balancer.step(balance, stats)

            done, trained = step + 1, time.perf_counter()
            learned_from = experience.blended if balancer.needs == "gramian" else experience.advantages
            values = {
                **logged,
                **observe(done, experience, learned_from(settings, weight), weight),
                "balance/weight": weight,
                "grad/norm": info.grad_norm,
                "lr": info.lr,
                "tokens/perception": float(counts[Span.perception]),
                "tokens/reasoning": float(counts[Span.reasoning]),
                "time/rollout_seconds": gathered - began - experience.reward_seconds,
                "time/reward_seconds": experience.reward_seconds,
                "time/update_seconds": trained - gathered,
                "time/step_seconds": time.perf_counter() - began,
            }
            run.log(done, values)
            if diverged(values):
                window = experience.window(family, settings, settings.rows_per_forward(engine.num_ranks), learned_from(settings, weight))
                raise divergence(run, engine, settings, done, values, [micro.batch for micro in window])
            bar.advance(done, a_p=values["reward/perception/mean"], a=values["reward/outcome/mean"], weight=weight)
            if settings.evaluates_after(done):
                evaluate(done)
            settle(run, engine, settings, TrainingState(step=done, balance=balance, share=None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """Updates from one round of rollouts."""

    engine: Engine
    family: Family
    settings: Rl
    counts: tuple[int, int]
    """(N_p, N_r): tokens of the whole step, over all ranks."""
    max_new_tokens: int
    reference: TokenNll | None

    def update(
        self, experience: RolloutBatch, balancer: Balancer, balance: BalanceState, stats: SpanStats, step: int
    ) -> tuple[BalanceState, SpanStats, StepInfo, dict[str, float]]:
        """One optimizer step on all rollouts of the round, with the weight that the strategy gives it."""
        if balancer.needs == "gramian":
            components = experience.components(self.settings)
            parts = [self._stashed(experience, span, components[span]) for span in Span]
            stats = replace(stats, gramian=self.engine.gramian())
            balance = balancer.step(balance, stats)
            weights = {Span.perception: balance.weight, Span.reasoning: 1 - balance.weight}
            self.engine.combine(weights)
            sums = sum((weights[span] * part for span, part in zip(Span, parts, strict=True)), torch.zeros(5, dtype=torch.float64))
        else:
            sums = self._backward(experience, experience.advantages(self.settings, balance.weight))
        info = self.engine.step(learning_rate(self.settings, step))
        loss, kl, clipped, drift, num_tokens = self.engine.all_reduce_sum(sums).tolist()
        values = {"loss/policy": loss, "policy/clipped": clipped / max(1, num_tokens), "policy/drift": drift / max(1, num_tokens)}
        if self.reference is not None:
            values["policy/kl"] = kl
        if stats.gramian is not None:
            seen, thought = stats.gramian.norms
            values |= {"grad/perception": seen, "grad/reasoning": thought, "grad/cosine": stats.gramian.cosine}
        return balance, stats, info, values

    def _stashed(self, experience: RolloutBatch, span: Span, advantages: SpanAdvantages) -> Tensor:
        sums = self._backward(experience, advantages)
        self.engine.keep_gradient(span)
        return sums

    def _backward(self, experience: RolloutBatch, advantages: SpanAdvantages) -> Tensor:
        """Add the gradient of the policy loss; on this rank its value, the KL, clipped tokens, sum of |log-ratio| and tokens, [5]."""
        settings, sums = self.settings, torch.zeros(5, dtype=torch.float64)
        rows = settings.rows_per_forward(self.engine.num_ranks)
        for micro in experience.window(self.family, settings, rows, advantages):
            nll = self.engine.nll(micro.batch)  # [B, T]
            device, labels = nll.device, micro.batch.labels.to(nll.device)
            mask, sampled = labels != UNSUPERVISED, micro.sampled.to(device)
            losses, clipped = clipped_policy_loss(
                -nll, sampled, micro.tokens(advantages).to(device), mask,
                loss=settings.loss, clip_low=settings.clip_low, clip_high=settings.clip_high,
            )  # fmt: skip
            weights = normalisers(
                labels, loss=settings.loss, num_rollouts=settings.step_rows, counts=self.counts,
                max_new_tokens=self.max_new_tokens, token_weight=settings.token_weight,
            )  # fmt: skip
            loss, kl = (weights * losses).sum(), nll.new_zeros(())
            if self.reference is not None:
                kl = (weights * kl_k3(-nll, self._by_reference(micro)) * mask).sum()
            self.engine.backward(loss + settings.kl * kl)
            drift = ((nll.detach() + sampled).abs() * mask).sum()
            sums += torch.stack([value.detach().double().cpu() for value in (loss, kl, clipped.sum(), drift, mask.sum())])
        return sums

    @torch.no_grad()
    def _by_reference(self, micro: MicroBatch) -> Tensor:
        """[B, T] log-probabilities of the tokens under the model that training started from."""
        assert self.reference is not None, "without a KL term nobody asks the reference"
        device = next(self.reference.parameters()).device
        return -self.reference(supervised(micro.batch.labels).to(device), **micro.batch.to(device).arguments)


def shortfall(experience: RolloutBatch) -> tuple[float, float]:
    """What is left to earn, 1 - mean reward, of perception and of the outcome: the losses that strategies read in RL."""
    return 1 - float(experience.perception.mean()), 1 - float(experience.outcome.mean())
