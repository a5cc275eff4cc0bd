"""The options `paradigm.*`: supervised fine-tuning and reinforcement learning.

Both share the options of the optimizer, its schedule, evaluations and checkpoints (`Training`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from percasym.config.schema import at_least, fraction, one_of

PolicyLoss = Literal["grpo", "dr_grpo", "dapo", "gspo"]
"""How the clipped surrogates of the tokens become a loss; see `percasym.objectives.policy`."""
Mixing = Literal["sum_then_normalize", "normalize_then_sum"]
"""Whether w mixes rewards (before a group is normalised) or advantages (after each reward was normalised: GDPO)."""
Component = Literal["outcome", "perception", "either"]
"""Which reward must vary within a group."""


def rows_per_forward(batch_size: int, micro_batch_size: int, num_ranks: int) -> int:
    """Most rows in one forward of one rank: `micro_batch_size`, or the rank's whole share of a step where that is less.

    A step keeps its rows on any number of ranks; what changes is the number of forwards in which a rank makes its share.

    >>> rows_per_forward(16, 4, num_ranks=2), rows_per_forward(16, 16, num_ranks=2)
    (4, 8)

    Raises ValueError when the ranks cannot share a step evenly.
    """
    share, left = divmod(batch_size, num_ranks)
    if left or not share:
        fewer = max(number for number in range(1, num_ranks) if not batch_size % number)
        raise ValueError(
            f"paradigm.batch_size={batch_size} cannot be dealt out evenly to {num_ranks} ranks. Start {fewer} (launch.nproc={fewer}), "
            f"or choose a multiple of {num_ranks}."
        )
    return min(micro_batch_size, share)


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Options of every paradigm."""

    steps: int
    """Optimizer steps of SFT; rounds of sampling and updating of RL."""
    batch_size: int
    """Samples (in RL: prompts) in one step, over all ranks and micro-batches."""
    micro_batch_size: int
    """Rows in one forward on one rank; its whole share of a step where that is less."""
    lr: float
    """Peak learning rate of AdamW."""
    lr_vision: float | None = None
    """Peak learning rate of the vision tower, for one that is trained; null is that of all else."""
    warmup_frac: float = 0.05
    """Share of the steps in which the learning rate rises linearly."""
    final_lr_frac: float = 0.1
    """Learning rate at the end of the cosine decay, as a share of the peak."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of AdamW's two moments."""
    max_grad_norm: float = 1.0
    """Clip the global gradient norm here; 0 turns clipping off."""
    eval_every: int = 0
    """Steps between evaluations during training; 0 evaluates before and after only."""
    save_every: int = 0
    """Steps between checkpoints; 0 writes the final one only."""

    def __post_init__(self) -> None:
        at_least("paradigm", 1, steps=self.steps, batch_size=self.batch_size, micro_batch_size=self.micro_batch_size)
        at_least("paradigm", 0, eval_every=self.eval_every, save_every=self.save_every)
        at_least("paradigm", 0, weight_decay=self.weight_decay, max_grad_norm=self.max_grad_norm)
        fraction("paradigm", warmup_frac=self.warmup_frac, final_lr_frac=self.final_lr_frac)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"paradigm.betas must lie in [0, 1), got {list(self.betas)}.")
        if not self.lr > 0:
            raise ValueError(f"paradigm.lr must be above 0, got {self.lr}.")
        if self.lr_vision is not None and not self.lr_vision > 0:
            raise ValueError(f"paradigm.lr_vision must be above 0, got {self.lr_vision}. model.freeze=[vision] leaves the tower as it is.")

    def evaluates_after(self, step: int) -> bool:
        """Whether an evaluation during training is due after `step` steps."""
        return self.eval_every > 0 and step % self.eval_every == 0 and step < self.steps

    @property
    def num_checkpoints(self) -> int:
        """How many checkpoints are due from beginning to end."""
        return -(-self.steps // (self.save_every or self.steps))

    def saves_after(self, step: int) -> bool:
        """Whether a checkpoint is due after `step` steps. The last step always has one."""
        return step == self.steps or (self.save_every > 0 and step % self.save_every == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sft(Training):
    """Supervised fine-tuning with one weight per span (`paradigm=sft`)."""

    probe_every: int = 0
    """Steps between measurements of both span gradients under a strategy that does not need them; 0 measures the first step only.
    A measurement costs a forward and backward over the perception prefix."""
    text_frac: float = 0.0
    """Share of the training samples that give p* as text in place of the picture. Trained on pictures alone, a model may lose the
    ability to reason from p* as text (`reasoning_text`)."""

    def __post_init__(self) -> None:
        Training.__post_init__(self)
        at_least("paradigm", 0, probe_every=self.probe_every)
        fraction("paradigm", text_frac=self.text_frac)
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"paradigm.batch_size={self.batch_size} is not a multiple of paradigm.micro_batch_size={self.micro_batch_size}. "
                "Choose a micro batch that divides the batch."
            )

    @property
    def step_rows(self) -> int:
        """Training rows of one step, over all ranks."""
        return self.batch_size

    def rows_per_forward(self, num_ranks: int) -> int:
        """Rows in one forward of one rank. Raises ValueError when the ranks cannot share a step evenly."""
        return rows_per_forward(self.batch_size, self.micro_batch_size, num_ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rl(Training):
    """Group-relative policy optimisation with a perception-aware reward, R = w a_p + (1 - w) a (`paradigm=rl`)."""

    group_size: int = 8
    """Rollouts of each prompt: the group within which rewards are compared."""
    epochs: int = 1
    """Optimizer steps made with the rollouts of one round (inner epochs); each sees all of them."""
    loss: PolicyLoss = "dapo"
    """grpo, dr_grpo, dapo or gspo: how the clipped surrogates of the tokens are averaged."""
    clip_low: float = 0.2
    """The probability ratio is clipped below at 1 - clip_low ..."""
    clip_high: float = 0.2
    """... and above at 1 + clip_high (DAPO's clip-higher: 0.28)."""
    importance_cap: float = 0.0
    """Weigh each token by its probability under the trainer over that under the sampler, at most this (truncated importance sampling, 2 in
    most work); 0 takes the sampler's probabilities as the trainer's. For `rollout=vllm`, whose kernels and number format differ."""
    kl: float = 0.0
    """Coefficient of the k3 estimate of the KL divergence to the model that RL started from; 0 keeps no copy of it."""
    normalize: bool = True
    """Divide advantages by the standard deviation of their group (GRPO); Dr. GRPO does not."""
    mixing: Mixing = "sum_then_normalize"
    """Mix the rewards and normalise each group, or normalise each reward and mix the advantages (normalize_then_sum, GDPO)."""
    route: bool = False
    """Give perception tokens the perception advantage and reasoning tokens the outcome advantage, in place of one for all."""
    token_weight: float | None = None
    """Weight of perception tokens in the policy loss, each span averaged over its own tokens as in SFT; null weighs all tokens alike."""
    overlong: Literal["score", "mask"] = "score"
    """A completion cut off at the token limit is graded as it is (wrong: `score`), or left out of the loss (`mask`)."""
    resample: int = 0
    """How often a prompt with a zero-variance group is replaced by a fresh prompt (DAPO's dynamic sampling)."""
    resample_by: Component = "outcome"
    """Which reward decides that, never the mixture: a group is kept if its outcome varies (as in DAPO), its perception, or either."""
    alarm_kl: float = 0.01
    """Warn when the trainer's probabilities differ from the sampler's by this KL divergence or more, in nats per token; 0 never. Usual are
    1e-9 with rollout=native, and 1e-4 there in bfloat16 (measured at scale=tiny)."""
    diagnose_every: int = 0
    """Steps between diagnoses that cost more forwards: a_r of each prompt, and the rewards that run the model; 0 for none."""
    measure_every: int = 1
    """Steps between measurements of the rewards that are not trained on and run no model (rerender takes most of their time); 0 measures
    them only with the rollouts that are recorded."""
    record_every: int = 10
    """Steps between records of the rollouts; 0 keeps none."""

    def __post_init__(self) -> None:
        Training.__post_init__(self)
        at_least("paradigm", 2, group_size=self.group_size)
        at_least("paradigm", 1, epochs=self.epochs)
        if self.importance_cap and not self.importance_cap >= 1:
            raise ValueError(f"paradigm.importance_cap must be 0 (no weights) or at least 1, got {self.importance_cap}.")
        at_least("paradigm", 0, alarm_kl=self.alarm_kl)
        at_least("paradigm", 0, kl=self.kl, clip_low=self.clip_low, clip_high=self.clip_high)
        at_least("paradigm", 0, resample=self.resample, diagnose_every=self.diagnose_every, record_every=self.record_every)
        at_least("paradigm", 0, measure_every=self.measure_every)
        fraction("paradigm", clip_low=self.clip_low)
        one_of("paradigm", PolicyLoss, loss=self.loss)
        one_of("paradigm", Mixing, mixing=self.mixing)
        one_of("paradigm", Component, resample_by=self.resample_by)
        one_of("paradigm", Literal["score", "mask"], overlong=self.overlong)
        if self.token_weight is not None:
            fraction("paradigm", token_weight=self.token_weight)
            if self.loss == "gspo":
                raise ValueError("paradigm.token_weight needs a loss of single tokens, and paradigm.loss=gspo has one of whole sequences.")
        if self.route and self.loss == "gspo":
            raise ValueError("paradigm.route=true needs a loss of single tokens, and paradigm.loss=gspo has one of whole sequences.")

    def records_after(self, done: int) -> bool:
        """Whether the rollouts of round number `done` (from 1) are recorded."""
        return self.record_every > 0 and (done == 1 or done % self.record_every == 0)

    def measures_after(self, done: int) -> bool:
        """Whether round number `done` (from 1) measures the rewards that are not trained on."""
        return self.records_after(done) or (self.measure_every > 0 and (done - 1) % self.measure_every == 0)

    @property
    def step_rows(self) -> int:
        """Rollouts of one step, over all ranks."""
        return self.batch_size * self.group_size

    def rows_per_forward(self, num_ranks: int) -> int:
        """Rows in one forward of one rank. Raises ValueError when the ranks cannot share the prompts of a step evenly."""
        prompts = rows_per_forward(self.batch_size, self.batch_size, num_ranks)
        return min(self.micro_batch_size, prompts * self.group_size)
