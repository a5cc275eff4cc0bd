"""The typed settings of a run.

Each class is the schema of one configuration group: its fields are the only keys, with their types and checks. Plug-ins (tasks,
strategies, families) bring their own dataclasses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from percasym.config.sampling import Precision
from percasym.config.schema import ConfigError, at_least, fraction, one_of

if TYPE_CHECKING:
    from percasym.balance.base import Balancer
    from percasym.config.paradigm import Rl, Sft
    from percasym.config.sampling import Sampling
    from percasym.config.schema import Plain
    from percasym.models.base import Family
    from percasym.rewards.base import Reward
    from percasym.tasks.base import Task
    from percasym.tokens.base import TokenWeights


EvaluationEngine = Literal["native", "vllm"]
"""What decodes the answers of evaluations."""
WeightType = Literal["float32", "bfloat16"]
"""In which an engine stores weights."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How the three metrics are measured (`evaluation.*`); greedy decoding, and sampled answers beside it."""

    num_samples: int
    """Samples of the test split, before and after training."""
    num_curve_samples: int
    """Samples behind every point of a curve, the first and the last included: the first ones of the same split, at most `num_samples`."""
    max_new_tokens: int
    """Token limit of a response."""
    batch_size: int
    """Responses decoded in one batch."""
    engine: EvaluationEngine = "native"
    """Decode with the model itself, in its own precision (native), or with vLLM, whose options under RL are `rollout.*`."""
    precision: Precision = "auto"
    """Type of vLLM's weights and kernels: auto (bfloat16 on a GPU that computes it natively, else float32), float32 or bfloat16."""
    gpu_memory_frac: float = 0.4
    """Share of the GPU's memory that vLLM may use."""
    tensor_parallel: int = 1
    """Ranks that share one copy of vLLM's weights; it divides the number of ranks."""
    seed: int = 0
    """Seed of the test samples, so that runs with different training seeds share one test set."""
    num_sampled: int = 0
    """Prompts of the test split that each evaluation also answers `samples_per_prompt` times at temperature 1, which is what RL trains:
    `sampled_*`, with p* forced for a_r; the first ones, at most `num_samples`; 0 for none."""
    samples_per_prompt: int = 8
    """Sampled answers to each of these prompts."""
    share_before: bool = True
    """Take the evaluation before training from another run of the study where nothing that it depends on differs: model, task, evaluation,
    commit, libraries, hardware and data. With plug-ins, or in a checkout with changes, it is measured again."""

    def __post_init__(self) -> None:
        at_least("evaluation", 1, num_samples=self.num_samples, num_curve_samples=self.num_curve_samples,
                  max_new_tokens=self.max_new_tokens, batch_size=self.batch_size)  # fmt: skip
        at_least("evaluation", 1, tensor_parallel=self.tensor_parallel, samples_per_prompt=self.samples_per_prompt)
        at_least("evaluation", 0, num_sampled=self.num_sampled)
        if self.num_sampled > self.num_samples:
            raise ValueError(
                f"evaluation.num_sampled={self.num_sampled} prompts are the first of evaluation.num_samples={self.num_samples}. "
                "Choose at most as many, or more samples."
            )
        one_of("evaluation", EvaluationEngine, engine=self.engine)
        one_of("evaluation", Precision, precision=self.precision)
        fraction("evaluation", gpu_memory_frac=self.gpu_memory_frac)


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchSettings:
    """The reference engine, and the default: plain PyTorch, on each rank the whole model (`engine=torch`)."""

    precision: Precision = "auto"
    """auto (bfloat16 on an accelerator that computes it natively, else float32), float32 or bfloat16."""
    cpu_matmul: WeightType = "float32"
    """Type in which the linear layers of a training step multiply on a CPU: float32, or bfloat16 on a processor that has it, a fifth
    faster with the packaged models. All else of the step, and evaluation, is float32."""

    def __post_init__(self) -> None:
        one_of("engine", Precision, precision=self.precision)
        one_of("engine", WeightType, cpu_matmul=self.cpu_matmul)
        if self.cpu_matmul == "bfloat16" and self.precision == "bfloat16":
            raise ValueError("engine.precision=bfloat16 multiplies in bfloat16 already. Set it, or engine.cpu_matmul=bfloat16.")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeepSpeedSettings:
    """DeepSpeed, ZeRO included (`engine=deepspeed`); needs the extra of that name."""

    precision: Precision = "auto"
    """auto (bfloat16 on an accelerator that computes it natively, else float32), float32 or bfloat16."""
    zero_stage: int = 0
    """What is sharded over the ranks: 0 nothing, 1 optimizer state, 2 gradients too, 3 weights too. One rank gains nothing from any
    (measured in benchmarks/)."""
    offload: bool = False
    """Keep optimizer state and master weights in CPU memory and run the optimizer there (ZeRO 1 to 3)."""
    weights: WeightType = "float32"
    """Type of the model's own weights: float32, or bfloat16 beside float32 masters that the optimizer updates (ZeRO-3): 20 bytes for each
    trained parameter in place of 24; 18 in place of 20 where no gradient of a span is kept."""

    def __post_init__(self) -> None:
        one_of("engine", Precision, precision=self.precision)
        one_of("engine", WeightType, weights=self.weights)
        if self.zero_stage not in range(4):
            raise ValueError(f"engine.zero_stage must be 0, 1, 2 or 3, got {self.zero_stage}.")
        if self.weights == "bfloat16" and self.zero_stage != 3:
            raise ValueError(f"engine.weights=bfloat16 needs engine.zero_stage=3, got {self.zero_stage}. Set it, or leave weights out.")
        if self.offload and not self.zero_stage:
            raise ValueError("engine.offload=true needs engine.zero_stage of 1, 2 or 3: without ZeRO there is nothing to keep elsewhere.")


def require_engine(engine: object) -> None:
    """Raise ConfigError where the package of this engine is not installed. Reading a configuration, or planning with it, needs none."""
    if isinstance(engine, DeepSpeedSettings) and find_spec("deepspeed") is None:
        raise ConfigError(
            'engine=deepspeed needs DeepSpeed, which is not installed: pip install "percasym[deepspeed]", or choose engine=torch.'
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How many processes train (`launch.*`); not needed under torchrun or srun, which is detected."""

    nproc: int = 1
    """Processes (ranks) on each machine, one for each accelerator."""
    nnodes: int = 1
    """Machines; the same command is given on each of them."""
    rendezvous: str | None = None
    """host:port of one of several machines, for the rendezvous of all."""
    heartbeat_minutes: float = 10.0
    """Stop a run of many ranks when the process of one does not respond for this long; 0 never."""

    def __post_init__(self) -> None:
        at_least("launch", 1, nproc=self.nproc, nnodes=self.nnodes)
        at_least("launch", 0, heartbeat_minutes=self.heartbeat_minutes)
        if self.nnodes > 1 and not re.fullmatch(r".+:\d{1,5}", self.rendezvous or ""):
            raise ValueError(f"launch.nnodes={self.nnodes} needs launch.rendezvous=HOST:PORT, one of the machines and a free port of it.")

    @property
    def num_ranks(self) -> int:
        """Processes on all machines."""
        return self.nproc * self.nnodes


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """What to do with the run directory (`run.*`)."""

    overwrite: bool = False
    """Delete an earlier run in the directory."""
    keep_last: int = 2
    """How many of the newest checkpoints are kept: where one is damaged, a run resumes from the one before it. 0 keeps all."""
    keep_best: bool = False
    """Keep the checkpoint with the highest eval/end_to_end during training, too."""

    def __post_init__(self) -> None:
        at_least("run", 0, keep_last=self.keep_last)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The configuration of one run, from yaml files and command line, typed and checked."""

    seed: int
    study: str
    plugins: tuple[str, ...]
    """Packages outside percasym whose classes may be named in the configuration."""
    task: Task
    family: Family
    paradigm: Sft | Rl
    evaluation: Evaluation
    balance: Balancer
    reward: Reward | None
    """What RL rewards as perception; None under any other paradigm."""
    rollout: Sampling | None
    """How RL samples; None under any other paradigm."""
    tokens: TokenWeights | None
    """Weights of single tokens; None weighs all of a span alike."""
    engine: Any
    """Settings of the engine (`engine.*`)."""
    tracker: Any
    """Settings of the tracker (`tracker.*`)."""
    launch: Launch
    run: RunOptions
    path: Path
    """The run directory."""
    record: Mapping[str, Plain]
    """The same as plain data, defaults included: the run directory keeps it as config.yaml and compares it on resume."""
