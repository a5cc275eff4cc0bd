"""What a plan must know of a configuration: how a run is laid out over its GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from percasym.config.paradigm import Rl
from percasym.config.settings import Settings
from percasym.models.adapt import Adaptation

GREEDY, SAMPLED, NARROWED = 12, 28, 60
"""Bytes for each logit while a token is chosen: the likeliest, a drawn one, one drawn under top-k or top-p (sorted, summed in 64 bits)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What one rank decodes together."""

    rows: int
    prompts: int
    """Rows that are prefilled: siblings share the prefill of their prompt."""
    max_new_tokens: int
    logit_bytes: int = GREEDY


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """What `paradigm=rl` adds: a run that learns from its own rollouts."""

    group_size: int
    epochs: int
    max_new_tokens: int
    """Where a rollout is cut off: the longest that can be learned from."""
    decoded: Answers | None
    """By the model itself; None where vLLM samples."""
    vllm_frac: float
    """Share of the GPU that vLLM takes."""
    reference: bool
    """A frozen copy of the model stays, for the KL divergence to it."""

    @classmethod
    def of(cls, paradigm: Rl, settings: Settings) -> Self:
        """The rollouts of one rank."""
        sampling, decoded = settings.rollout, None
        assert sampling is not None, "paradigm=rl chooses a rollout"
        batch_size: int | None = getattr(sampling, "batch_size", None)
        if batch_size:
            prompts = min(paradigm.batch_size // settings.launch.num_ranks, max(1, batch_size // paradigm.group_size))
            decoded = Answers(
                rows=prompts * min(paradigm.group_size, batch_size),
                prompts=prompts,
                max_new_tokens=sampling.max_new_tokens,
                logit_bytes=NARROWED if sampling.top_k or sampling.top_p < 1 else SAMPLED,
            )
        return cls(
            group_size=paradigm.group_size,
            epochs=paradigm.epochs,
            max_new_tokens=sampling.max_new_tokens,
            decoded=decoded,
            vllm_frac=getattr(sampling, "memory_frac", 0.0),
            reference=paradigm.kl > 0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One GPU's share of the work."""

    num_ranks: int
    zero_stage: int
    offload: bool
    computing_bytes: int
    """Of one number in the computing type: 2 for bfloat16, 4 for float32."""
    checkpointing: bool
    eager: bool
    """Attention that writes its scores out."""
    adapters: bool
    rows: int
    """Rows in one forward."""
    step_rows: int
    """Rows that one step learns from, over all ranks."""
    measures_gradients: bool
    """Both span gradients are measured at every step, not only at a probe."""
    eval_bytes: int
    """Of one number in an evaluation, which computes in the type that the weights are held in (flash attention has no float32)."""
    evaluation: Answers
    sampled: Sampled | None
    """None where demonstrations are learned."""

    @property
    def sets_aside(self) -> bool:
        """Whether a span's gradient is ever set aside: SFT measures both at its first step at least, RL only for a strategy that asks."""
        return self.sampled is None or self.measures_gradients

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The layout of a run; `engine.precision=auto` is read as bfloat16, which it is on a GPU.

        Raises ValueError when the ranks cannot share a step evenly.
        """
        family: Adaptation = settings.family  # type: ignore[assignment]
        computing = 4 if settings.engine.precision == "float32" else 2
        paradigm, evaluation, num_ranks = settings.paradigm, settings.evaluation, settings.launch.num_ranks
        rows = paradigm.rows_per_forward(num_ranks)
        return cls(
            num_ranks=num_ranks,
            zero_stage=getattr(settings.engine, "zero_stage", 0),
            offload=getattr(settings.engine, "offload", False),
            computing_bytes=computing,
            checkpointing=family.gradient_checkpointing,
            eager=family.attention == "eager",
            adapters=family.lora is not None,
            rows=rows,
            step_rows=paradigm.step_rows,
            measures_gradients=settings.balance.needs == "gramian",
            eval_bytes=computing if family.lora or family.attention == "flash_attention_2" else 4,
            evaluation=Answers(rows=evaluation.batch_size, prompts=evaluation.batch_size, max_new_tokens=evaluation.max_new_tokens),
            sampled=Sampled.of(paradigm, settings) if isinstance(paradigm, Rl) else None,
        )
