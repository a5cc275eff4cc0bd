"""The options `rollout.*`: how rollouts are sampled, and by which engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from percasym.config.schema import at_least, one_of

Precision = Literal["auto", "float32", "bfloat16"]
"""Compute type of a model; `auto` is bfloat16 on an accelerator that computes it natively, float32 elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next token is drawn."""

    temperature: float = 1.0
    """Logits are divided by it."""
    top_p: float = 1.0
    """Sample among the most likely tokens that together have this probability; 1 keeps all."""
    top_k: int = 0
    """Sample among this many most likely tokens; 0 keeps all."""
    max_new_tokens: int
    """Tokens after which a completion is cut off."""

    def __post_init__(self) -> None:
        at_least("rollout", 0, top_k=self.top_k)
        at_least("rollout", 1, max_new_tokens=self.max_new_tokens)
        if not self.temperature > 0:
            raise ValueError(f"rollout.temperature must be above 0, got {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"rollout.top_p must lie in (0, 1], got {self.top_p}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Native(Sampling):
    """Decode with the model that is being trained (`rollout=native`)."""

    batch_size: int = 256
    """Rollouts in one batch."""
    precision: Precision = "auto"
    """auto samples with the model itself; float32 and bfloat16 with a copy of its decoder in this type, made at each round, adapters merged
    and projections fused. Probabilities in bfloat16 differ from the trainer's as vLLM's do (paradigm.importance_cap)."""

    def __post_init__(self) -> None:
        Sampling.__post_init__(self)
        one_of("rollout", Precision, precision=self.precision)
        at_least("rollout", 1, batch_size=self.batch_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vllm(Sampling):
    """Decode with vLLM in the same process; its weights are refreshed after each update (`rollout=vllm`)."""

    gpu_memory_frac: float = 0.4
    """Share of the GPU's memory that vLLM may use."""
    tensor_parallel: int = 1
    """Ranks that share one copy of vLLM's weights; it divides the number of ranks."""
    precision: Precision = "auto"
    """Type of vLLM's weights and kernels: auto (bfloat16 on a GPU that computes it natively, else float32), float32 or bfloat16."""
    max_prompt_tokens: int = 4096
    """Room for a prompt with its image tokens, beside `max_new_tokens`; the model's own limit if that is lower."""
    sleep: bool = True
    """Between rounds move vLLM's weights to the host's memory and free its cache (on a GPU)."""

    def __post_init__(self) -> None:
        Sampling.__post_init__(self)
        at_least("rollout", 1, max_prompt_tokens=self.max_prompt_tokens, tensor_parallel=self.tensor_parallel)
        one_of("rollout", Precision, precision=self.precision)
        if not 0 < self.gpu_memory_frac < 1:
            raise ValueError(f"rollout.gpu_memory_frac must lie in (0, 1), got {self.gpu_memory_frac}.")
