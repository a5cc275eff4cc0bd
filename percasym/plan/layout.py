"""What a plan must know of a configuration: how a run is laid out over its GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from percasym.models.adapt import Adaptation
from percasym.settings import Settings


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
    eval_rows: int
    max_new_tokens: int

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The layout of a run; `engine.precision=auto` is read as bfloat16, which it is on a GPU.

        Raises ValueError when the ranks cannot share a step evenly.
        """
        family: Adaptation = settings.family  # type: ignore[assignment]
        computing = 4 if settings.engine.precision == "float32" else 2
        return cls(
            num_ranks=settings.launch.num_ranks,
            zero_stage=getattr(settings.engine, "zero_stage", 0),
            offload=getattr(settings.engine, "offload", False),
            computing_bytes=computing,
            checkpointing=family.gradient_checkpointing,
            eager=family.attention == "eager",
            adapters=family.lora is not None,
            rows=settings.paradigm.rows_per_forward(settings.launch.num_ranks),
            step_rows=settings.paradigm.step_rows,
            measures_gradients=settings.balance.needs == "gramian",
            eval_bytes=computing if family.lora or family.attention == "flash_attention_2" else 4,
            eval_rows=max(settings.evaluation.batch_size, getattr(settings.rollout, "batch_size", 0)),
            max_new_tokens=settings.evaluation.max_new_tokens,
        )
