"""Group-relative policy optimisation with the reward R = w a_p + (1 - w) a.

Unlike an ordinary GRPO loop, it keeps the perception reward and the outcome reward apart until the advantages are computed. A strategy can
then move w or balance the two policy gradients, and each reward can be routed to the tokens of its own span. Reward statistics are logged
at every step, to show which spans the outcome reward trains:

    python train.py paradigm=rl balance=fixed balance.weight=0.3
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from percasym.balance.base import Balancer, BalanceState, SpanStats
from percasym.config.paradigm import Rl
from percasym.engine.base import Engine, StepInfo
from percasym.engine.vision_cache import Share
from percasym.models.base import Batch, Family
from percasym.objectives.policy import clipped_policy_loss, importance_weights, kl_k3, normalisers
from percasym.runs.base import Run
from percasym.training.divergence import MismatchAlarm, diverged, record_divergence
from percasym.training.progress import TrainingState, learning_rate, save_or_stop
from percasym.training.rollout_batch import MicroBatch, RolloutBatch, SpanAdvantages
from percasym.types import UNSUPERVISED, Span

NUM_SUMS = 8
"""Numbers that a backward pass adds up for the log."""


def train(
    *,
    engine: Engine,
    family: Family,
    collect: Callable[[int, float], RolloutBatch],
    observe: Callable[[int, RolloutBatch, SpanAdvantages, float], Mapping[str, float]],
    balancer: Balancer,
    settings: Rl,
    max_new_tokens: int,
    run: Run,
    evaluate: Callable[[int], None],
    reference: Callable[[Batch], Tensor] | None = None,
    start: TrainingState | None = None,
) -> None:
    """Sample and update for `settings.steps` steps in total.

    `collect(step, w)` samples and rewards this rank's prompts of a step, counted from 0. `observe(done, batch, advantages, w)` records a
    batch and returns its reward statistics. `reference` gives the losses of the model of the KL term.

    Raises TrainingDivergedError when the loss or its gradient is not finite, Stopped on a signal.
    """
    state = start or TrainingState(step=0, balance=balancer.start(), share=None)
    balance, alarm = state.balance, MismatchAlarm(settings.alarm_kl)
    with run.progress(settings.steps, "training", start=state.step) as bar:
        for step in range(state.step, settings.steps):
            began = time.perf_counter()
            # Ordinary RL optimises the outcome alone, so its token-average weight of perception is 0: counts (0, all rollouts).
            stats = SpanStats(step=step, num_steps=settings.steps, counts=(0, settings.step_rows))
            if balancer.needs == "counts":
                balance = balancer.step(balance, stats)
            batch = collect(step, balance.weight)
            collected = time.perf_counter()
            stats = replace(stats, losses=reward_losses(batch), spreads=reward_spreads(batch))
            if balancer.needs == "spreads":
                balance = balancer.step(balance, stats)
            counts = tuple(engine.all_reduce_sum(batch.counts(settings)).tolist())  # (N_p, N_r) of the whole step
            learner = Learner(
                engine=engine, family=family, settings=settings, counts=counts, max_new_tokens=max_new_tokens, reference=reference
            )
            logged: dict[str, float] = {}
            with engine.share_vision() as share:
                learner = replace(learner, share=share)
                if settings.importance_cap and settings.epochs > 1:
                    learner.measure_trained(batch)
                for epoch in range(settings.epochs):
                    balance, stats, info, values = learner.update(batch, balancer, balance, stats, step)
                    mismatch = values.pop("policy/mismatch")
                    logged.setdefault("policy/mismatch", mismatch)  # Before the first update the weights are those that sampled.
                    logged |= {f"{name}/first" if epoch == 0 and settings.epochs > 1 else name: value for name, value in values.items()}
                    if not math.isfinite(info.grad_norm):  # The engine skipped the update; the run ends below.
                        break
            weight = balance.weight
            if balancer.needs == "losses":
                balance = balancer.step(balance, stats)  # Takes effect at the next step.

            done, trained = step + 1, time.perf_counter()
            advantages = (batch.blended if balancer.needs == "gramian" else batch.advantages)(settings, weight)
            values = {
                **logged,
                **observe(done, batch, advantages, weight),
                "balance/weight": weight,
                "grad/norm": info.grad_norm,
                "lr": info.lr,
                "tokens/perception": float(counts[Span.perception]),
                "tokens/reasoning": float(counts[Span.reasoning]),
                "time/rollout_seconds": collected - began - batch.reward_seconds,
                "time/reward_seconds": batch.reward_seconds,
                "time/update_seconds": trained - collected,
                "time/step_seconds": time.perf_counter() - began,
            }
            run.log(done, values)
            if warning := alarm.warning(done, values["policy/mismatch"]):
                run.warn(warning)
            if diverged(values):
                window = batch.window(family, settings, settings.rows_per_forward(engine.num_ranks), advantages)
                raise record_divergence(run, engine.rank, settings, done, values, [micro.batch for micro in window])
            bar.advance(done, a_p=values["reward/perception/mean"], a=values["reward/outcome/mean"], weight=weight)
            if settings.evaluates_after(done):
                evaluate(done)
            save_or_stop(run, engine, settings, TrainingState(step=done, balance=balance, share=None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """Optimizer steps on one batch of rollouts."""

    engine: Engine
    family: Family
    settings: Rl
    counts: tuple[int, int]
    """(N_p, N_r): tokens of the whole step, over all ranks."""
    max_new_tokens: int
    reference: Callable[[Batch], Tensor] | None
    share: Share = lambda keys: nullcontext()
    """Context of a forward whose pictures have keys, so that the rollouts of a prompt share the features of its picture."""
    measured: dict[int, Tensor] = field(default_factory=dict)
    """For each rollout the trainer's log-probabilities before the first of several epochs; empty with one epoch."""

    def update(
        self, batch: RolloutBatch, balancer: Balancer, balance: BalanceState, stats: SpanStats, step: int
    ) -> tuple[BalanceState, SpanStats, StepInfo, dict[str, float]]:
        """One optimizer step on all rollouts of the batch, under the weight of the strategy; returns the metrics to log last."""
        if balancer.needs == "gramian":
            components = batch.components(self.settings)
            parts = [self._kept_gradient(batch, span, components[span]) for span in Span]
            stats = replace(stats, gramian=self.engine.gramian())
            balance = balancer.step(balance, stats)
            weights = {Span.perception: balance.weight, Span.reasoning: 1 - balance.weight}
            self.engine.combine(weights)
            sums = sum((weights[span] * part for span, part in zip(Span, parts, strict=True)), torch.zeros(NUM_SUMS, dtype=torch.float64))
        else:
            sums = self._backward(batch, batch.advantages(self.settings, balance.weight))
        info = self.engine.step(learning_rate(self.settings, step))
        loss, kl, clipped, abs_log_ratio, mismatch, importance, truncated, num_tokens = self.engine.all_reduce_sum(sums).tolist()
        values = {
            "loss/policy": loss,
            "policy/clipped": clipped / max(1, num_tokens),
            "policy/drift": abs_log_ratio / max(1, num_tokens),
            "policy/mismatch": mismatch / max(1, num_tokens),
        }
        if self.settings.importance_cap:
            values |= {"policy/importance": importance / max(1, num_tokens), "policy/truncated": truncated / max(1, num_tokens)}
        if self.reference is not None:
            values["policy/kl"] = kl
        if stats.gramian is not None:
            norm_p, norm_r = stats.gramian.norms
            values |= {"grad/perception": norm_p, "grad/reasoning": norm_r, "grad/cosine": stats.gramian.cosine}
        return balance, stats, info, values

    def _kept_gradient(self, batch: RolloutBatch, span: Span, advantages: SpanAdvantages) -> Tensor:
        """Compute one policy gradient and keep it in the engine as that of `span`; returns the sums of `_backward`."""
        sums = self._backward(batch, advantages)
        self.engine.keep_gradient(span)
        return sums

    def _backward(self, batch: RolloutBatch, advantages: SpanAdvantages) -> Tensor:
        """Add the gradient of the policy loss; returns this rank's sums [8].

        Loss, KL, clipped tokens, absolute log-ratio, k3 of sampler and trainer, importance weights, truncated weights, tokens.
        """
        settings, sums = self.settings, torch.zeros(NUM_SUMS, dtype=torch.float64)
        rows = settings.rows_per_forward(self.engine.num_ranks)
        for micro in batch.window(self.family, settings, rows, advantages):
            reference = self._reference_logprobs(micro) if self.reference is not None else None  # Before the graph of the policy.
            nll = self._nll(micro)  # [B, T]
            device, labels = nll.device, micro.batch.labels.to(nll.device)
            mask, sampled = labels != UNSUPERVISED, micro.sampled.to(device)
            trained = self._trained(micro, nll) if settings.importance_cap else sampled
            losses, clipped = clipped_policy_loss(
                -nll, trained, micro.tokens(advantages).to(device), mask,
                loss=settings.loss, clip_low=settings.clip_low, clip_high=settings.clip_high,
            )  # fmt: skip
            importance, truncated = mask.float(), mask.new_zeros(())
            if settings.importance_cap:
                importance, truncated = importance_weights(trained, sampled, mask, settings.importance_cap)
                losses = losses * importance
            weights = normalisers(
                labels, loss=settings.loss, num_rollouts=settings.step_rows, counts=self.counts,
                max_new_tokens=self.max_new_tokens, token_weight=settings.token_weight,
            )  # fmt: skip
            loss, kl = (weights * losses).sum(), nll.new_zeros(())
            if reference is not None:
                kl = (weights * kl_k3(-nll, reference) * mask).sum()
            self.engine.backward(loss + settings.kl * kl)
            abs_log_ratio = ((nll.detach() + sampled).abs() * mask).sum()
            mismatch = (kl_k3(sampled, -nll.detach()) * mask).sum()  # KL(sampler || trainer).
            values = (loss, kl, clipped.sum(), abs_log_ratio, mismatch, importance.sum(), truncated.sum(), mask.sum())
            sums += torch.stack([value.detach().double().cpu() for value in values])
        return sums

    @torch.no_grad()
    def measure_trained(self, batch: RolloutBatch) -> None:
        """Keep the trainer's log-probability of each token before the first of several epochs; one forward for each micro-batch."""
        whole = dict.fromkeys(Span, torch.ones(batch.outcome.numel()))
        for micro in batch.window(self.family, self.settings, self.settings.rows_per_forward(self.engine.num_ranks), whole):
            nll, labels = self._nll(micro).cpu(), micro.batch.labels
            for row, place in enumerate(micro.rows.tolist()):
                self.measured[place] = -nll[row][labels[row] != UNSUPERVISED]

    def _nll(self, micro: MicroBatch) -> Tensor:
        """[B, T] losses of the tokens; rollouts of a prompt share the features of its picture."""
        with nullcontext() if micro.pictures is None else self.share(micro.pictures):
            return self.engine.nll(micro.batch)

    def _trained(self, micro: MicroBatch, nll: Tensor) -> Tensor:
        """[B, T] log-probabilities under the trainer with the weights that sampled; those of this forward until the first update."""
        if not self.measured:
            return -nll.detach()
        trained = torch.zeros(micro.batch.labels.shape)
        for row, place in enumerate(micro.rows.tolist()):
            trained[row, micro.batch.labels[row] != UNSUPERVISED] = self.measured[place]
        return trained.to(nll.device)

    @torch.no_grad()
    def _reference_logprobs(self, micro: MicroBatch) -> Tensor:
        """[B, T] log-probabilities of the tokens under the reference model."""
        assert self.reference is not None, "only a KL term needs the reference"
        return -self.reference(micro.batch)


def reward_losses(batch: RolloutBatch) -> tuple[float, float]:
    """One minus the mean reward, of perception and of the outcome: the losses that a strategy reads in RL."""
    return 1 - float(batch.perception.mean()), 1 - float(batch.outcome.mean())


def reward_spreads(batch: RolloutBatch) -> tuple[float, float]:
    """Coefficient of variation of each reward over all rollouts: standard deviation (of a sample) over mean; nan with mean 0."""
    perception, outcome = (float(r.std()) / float(r.mean()) if float(r.mean()) else math.nan for r in (batch.perception, batch.outcome))
    return perception, outcome
