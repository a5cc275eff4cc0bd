"""What a configuration will cost, before anything is downloaded or started: parameters, memory of each GPU, work of a step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from percasym.config.schema import ConfigError
from percasym.config.settings import Settings
from percasym.models.adapt import Adaptation
from percasym.models.anatomy.base import Anatomy
from percasym.plan import memory
from percasym.plan.layout import Layout
from percasym.plan.lengths import Lengths, measure
from percasym.plan.parameters import Parameters, count
from percasym.plan.work import Work, work

GPU_GB = 80.0
"""Memory of one GPU in 10^9 bytes, unless said otherwise (A100, H100)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The cost of one configuration."""

    anatomy: Anatomy
    parameters: Parameters
    layout: Layout
    lengths: Lengths
    work: Work
    gpu_bytes: int
    """Memory of one GPU."""

    @property
    def training(self) -> memory.Bytes:
        """Bytes of one GPU by part at the height of a step."""
        return self._beside(memory.training(self.anatomy, self.parameters, self.layout, self.lengths))

    @property
    def evaluation(self) -> memory.Bytes:
        """Bytes of one GPU by part while the model is evaluated."""
        return self._beside(memory.evaluation(self.anatomy, self.parameters, self.layout, self.lengths))

    @property
    def rollouts(self) -> memory.Bytes:
        """Bytes of one GPU by part while rollouts are sampled and rewarded; empty but in RL."""
        return self._beside(memory.rollouts(self.anatomy, self.parameters, self.layout, self.lengths))

    @property
    def peak(self) -> int:
        """The largest of the three."""
        return max(sum(held.values()) for held in (self.training, self.evaluation, self.rollouts))

    @property
    def fits(self) -> bool:
        """Whether one GPU holds it."""
        return self.peak <= self.gpu_bytes

    def remedies(self) -> Iterator[tuple[str, int]]:
        """Single changes of the configuration, each with the peak that it leads to."""
        layout, evaluation, sampled = self.layout, self.layout.evaluation, self.layout.sampled
        fewer = max(1, evaluation.rows // 4)
        changes = {
            "engine.zero_stage=3": replace(layout, zero_stage=3 if layout.num_ranks > 1 else layout.zero_stage),
            "engine.offload=true": replace(layout, offload=layout.zero_stage > 0),
            "model.gradient_checkpointing=true": replace(layout, checkpointing=True),
            "paradigm.micro_batch_size=1": replace(layout, rows=1),
            f"evaluation.batch_size={fewer}": replace(layout, evaluation=replace(evaluation, rows=fewer, prompts=fewer)),
        }
        if sampled:
            changes["paradigm.kl=0"] = replace(layout, sampled=replace(sampled, reference=False))
        if sampled and sampled.decoded:
            prompts = max(1, sampled.decoded.prompts // 4)
            rows = prompts * sampled.group_size
            decoded = replace(sampled.decoded, rows=rows, prompts=prompts)
            changes[f"rollout.batch_size={rows}"] = replace(layout, sampled=replace(sampled, decoded=decoded))
        for words, changed in changes.items():
            if (peak := replace(self, layout=changed).peak) < self.peak:
                yield words, peak

    def _beside(self, held: memory.Bytes) -> memory.Bytes:
        """The same with what vLLM takes of the GPU at its start, and keeps."""
        sampled = self.layout.sampled
        return {**held, "vLLM": round(sampled.vllm_frac * self.gpu_bytes)} if sampled and held else held


def plan(settings: Settings, *, gpu_gb: float = GPU_GB) -> Plan:
    """The plan of a configuration.

    Raises ConfigError when the family or the task cannot say what is needed.
    """
    family = settings.family
    if not 0 < gpu_gb < math.inf:
        raise ConfigError(f"--gpu-gb must be a number above 0, got {gpu_gb:g}.")
    if not isinstance(family, Adaptation) or not hasattr(family, "anatomy"):
        raise ConfigError(f"{type(family).__name__} has no anatomy(), so its parameters cannot be counted. Write that method first.")
    try:
        anatomy = family.anatomy()
        layout, lengths = Layout.of(settings), measure(settings.task, anatomy, split="train_sft")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    parameters = count(anatomy, family)
    done = work(anatomy, parameters, layout, lengths)
    return Plan(anatomy=anatomy, parameters=parameters, layout=layout, lengths=lengths, work=done, gpu_bytes=round(gpu_gb * 1e9))
