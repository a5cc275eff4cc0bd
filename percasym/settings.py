"""The typed settings of a run: what the configuration becomes before any work starts.

Each class is the schema of one configuration group: its fields are the only keys, its types the only
types, its checks the only values. Plug-ins (tasks, strategies, families) bring their own dataclasses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from percasym.balance.base import Balancer
    from percasym.models.base import Family
    from percasym.schema import Plain
    from percasym.tasks.base import Task

Precision = Literal["auto", "float32", "bfloat16"]
"""What trunk and head compute in; weights, gradients and optimizer are float32 always. `auto` is bfloat16
on an accelerator that computes it natively, float32 elsewhere."""


def _at_least(owner: str, low: float, **values: float) -> None:
    for name, value in values.items():
        if not value >= low:
            raise ValueError(f"{owner}.{name} must be at least {low}, got {value}.")


def _fraction(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{owner}.{name} must lie in [0, 1], got {value}.")


def _precision(name: str) -> None:
    if name not in get_args(Precision):
        raise ValueError(f"engine.precision must be one of {', '.join(get_args(Precision))}, got {name!r}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sft:
    """Supervised fine-tuning with one weight per span (`paradigm=sft`)."""

    steps: int
    """Optimizer steps."""
    batch_size: int
    """Samples in one optimizer step, over all ranks and micro-batches."""
    micro_batch_size: int
    """Samples in one forward on one rank; its whole share of a step where that is less."""
    lr: float
    """Peak learning rate of AdamW."""
    warmup_frac: float = 0.05
    """Share of the steps in which the learning rate rises linearly."""
    final_lr_frac: float = 0.1
    """Where the cosine decay ends, as a share of the peak."""
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    max_grad_norm: float = 1.0
    """Clip the global gradient norm here; 0 turns clipping off."""
    eval_every: int = 0
    """Optimizer steps between evaluations on the way; 0 evaluates before and after only."""
    save_every: int = 0
    """Optimizer steps between checkpoints; 0 writes the final one only."""
    probe_every: int = 0
    """Optimizer steps between measurements of both span gradients under a strategy that does not need them;
    0 measures the first step only. One costs a forward and backward over the perception prefix."""

    def __post_init__(self) -> None:
        _at_least("paradigm", 1, steps=self.steps, batch_size=self.batch_size, micro_batch_size=self.micro_batch_size)
        _at_least("paradigm", 0, eval_every=self.eval_every, save_every=self.save_every, probe_every=self.probe_every)
        _at_least("paradigm", 0, weight_decay=self.weight_decay, max_grad_norm=self.max_grad_norm)
        _fraction("paradigm", warmup_frac=self.warmup_frac, final_lr_frac=self.final_lr_frac)
        if not self.lr > 0:
            raise ValueError(f"paradigm.lr must be above 0, got {self.lr}.")
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"paradigm.batch_size={self.batch_size} is not a multiple of paradigm.micro_batch_size={self.micro_batch_size}. "
                "Choose a micro batch that divides the batch."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How the three metrics are measured (`evaluation.*`); greedy decoding."""

    num_samples: int
    """Samples of the test split, before and after training."""
    num_curve_samples: int
    """Samples in each evaluation on the way (the first ones of the same split)."""
    max_new_tokens: int
    batch_size: int
    seed: int = 0
    """Seed of the test samples, so that runs with different training seeds share one test set."""

    def __post_init__(self) -> None:
        _at_least("evaluation", 1, num_samples=self.num_samples, num_curve_samples=self.num_curve_samples,
                  max_new_tokens=self.max_new_tokens, batch_size=self.batch_size)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchSettings:
    """The reference engine: plain PyTorch on one device (`engine=torch`)."""

    precision: Precision = "auto"

    def __post_init__(self) -> None:
        _precision(self.precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepSpeedSettings:
    """DeepSpeed, ZeRO included (`engine=deepspeed`)."""

    precision: Precision = "auto"
    zero_stage: int = 0
    """What is split over the ranks: 0 nothing, 1 optimizer state, 2 gradients too, 3 weights too. One rank gains nothing from any
    (measured in benchmarks/)."""
    offload: bool = False
    """Keep optimizer state and master weights in the memory of the CPU, and update there (ZeRO 1 to 3)."""

    def __post_init__(self) -> None:
        _precision(self.precision)
        if self.zero_stage not in range(4):
            raise ValueError(f"engine.zero_stage must be 0, 1, 2 or 3, got {self.zero_stage}.")
        if self.offload and not self.zero_stage:
            raise ValueError("engine.offload=true needs engine.zero_stage of 1, 2 or 3: without ZeRO there is nothing to keep elsewhere.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How many processes work on a run (`launch.*`); an outer torchrun or srun is noticed without them."""

    nproc: int = 1
    """Processes (ranks) on each machine: one for each of its accelerators."""
    nnodes: int = 1
    """Machines; the same command is given on each of them."""
    rendezvous: str | None = None
    """host:port of one of several machines, where all of them meet."""

    def __post_init__(self) -> None:
        _at_least("launch", 1, nproc=self.nproc, nnodes=self.nnodes)
        if self.nnodes > 1 and not self.rendezvous:
            raise ValueError(f"launch.nnodes={self.nnodes} needs launch.rendezvous=HOST:PORT, one of the machines and a free port of it.")

    @property
    def num_ranks(self) -> int:
        """Processes on all machines."""
        return self.nproc * self.nnodes


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What to do with the run directory (`run.*`)."""

    overwrite: bool = False
    """Throw away what an earlier run left there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One run: everything that the yaml files and the command line said, typed and checked."""

    seed: int
    study: str
    plugins: tuple[str, ...]
    """Packages outside percasym whose classes may be named in the configuration."""
    task: Task
    family: Family
    paradigm: Sft
    evaluation: Evaluation
    balance: Balancer
    engine: Any
    """Settings of the engine (`engine.*`)."""
    tracker: Any
    """Settings of the tracker (`tracker.*`)."""
    launch: Launch
    run: RunOptions
    path: Path
    """The run directory."""
    record: Mapping[str, Plain]
    """The same as plain data, defaults included: what the run directory keeps and compares."""
