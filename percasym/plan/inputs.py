"""The three inputs of a plan: how a run is laid out over its GPUs, its parameter counts, and the token lengths of its samples.

All come from the configuration and a few samples of the task; neither torch nor transformers is imported.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Self

from percasym.config.paradigm import Rl
from percasym.config.sampling import Native
from percasym.config.settings import Settings, TorchSettings
from percasym.models.adapt import PARTS, Adaptation, Lora, Part
from percasym.models.anatomy import Anatomy, Weights
from percasym.tasks.base import Task
from percasym.types import Sample, SampleKey

GREEDY, SAMPLED, NARROWED = 12, 28, 60
"""Bytes per logit while a token is chosen: greedy, sampled, or sampled with top-k or top-p (sorted, cumulative sum in 64 bits)."""

NUM_SAMPLES = 16  # About half a second with drawing. Lengths vary by 10 to 25 %, so the mean is within 2 to 6 %.
CHAT_TOKENS = 12
"""Tokens that both families' chat templates add around a picture and a question."""

QWEN_PIECES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""The pre-tokenizer pattern of both families' released checkpoints (published by Qwen): each digit is one token, and so are nearly all
words. Compared with the real merges (qwen.tiktoken of dashscope 2.0.2), counting its pieces misses 0.15 % of the tokens of 9x9 Sudokus
and 1.3 % of those of graphs with 8 to 12 nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """One decoding batch of one rank."""

    rows: int
    prompts: int
    """Rows that are prefilled: rollouts of one group share the prefill of their prompt."""
    max_new_tokens: int
    logit_bytes: int = GREEDY


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """The sampling side of `paradigm=rl`."""

    group_size: int
    epochs: int
    max_new_tokens: int
    """Maximum length of a rollout."""
    decoded: Answers | None
    """Batch decoded by the model itself; None if vLLM samples."""
    vllm_frac: float
    """Share of GPU memory reserved by vLLM."""
    copied_bytes: int
    """Bytes of one element of the decoder's copy that rollouts are sampled with (`rollout.precision`); 0 without one."""
    queries: bool
    """Whether rewards, or diagnoses of them, run the model itself."""
    reference: bool
    """Whether the KL term needs the losses of the initial model."""

    @classmethod
    def of(cls, paradigm: Rl, settings: Settings) -> Self:
        """The sampling of one rank."""
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
            vllm_frac=getattr(sampling, "gpu_memory_frac", 0.0),
            copied_bytes={"float32": 4, "bfloat16": 2}.get(sampling.precision, 0) if isinstance(sampling, Native) else 0,
            queries=decoded is not None or paradigm.diagnose_every > 0 or getattr(settings.reward, "needs_policy", False),
            reference=paradigm.kl > 0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a run is laid out over its GPUs."""

    num_ranks: int
    zero_stage: int
    offload: bool
    computing_bytes: int
    """Bytes of one element in the compute type: 2 for bfloat16, 4 for float32."""
    checkpointing: bool
    eager: bool
    """Whether attention materialises its scores."""
    adapters: bool
    rows: int
    """Rows in one forward."""
    step_rows: int
    """Rows in one optimizer step, over all ranks."""
    measures_gradients: bool
    """Whether both span gradients are measured at every step, not only at a probe."""
    eval_bytes: int
    """Bytes of one element in evaluations, which compute in the type of the weights (flash attention has no float32)."""
    evaluation: Answers
    sampled: Sampled | None
    """None for supervised training."""
    plain: bool = False
    """Whether plain PyTorch trains (`engine=torch`), which has no option of ZeRO."""
    ranks_of_machine: int = 1
    """Ranks that share the memory of one machine."""
    stored_bytes: int = 4
    """Bytes of one element of the model's own weights: 2 where they are rounded beside float32 masters (`engine.weights=bfloat16`)."""
    vllm_evaluation: float = 0.0
    """Share of GPU memory that vLLM takes for evaluations; 0 where the model itself answers."""
    vllm_sleeps: bool = True
    """Whether vLLM leaves the GPU while the model is trained."""
    tensor_parallel: int = 1
    """Ranks that share one copy of vLLM's weights."""

    @property
    def stores_span_gradient(self) -> bool:
        """Whether a span gradient is ever stored: SFT measures both at least at its first step, RL only for a strategy that needs them."""
        return self.sampled is None or self.measures_gradients

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The layout of a run; `engine.precision=auto` is treated as bfloat16, its value on a GPU.

        Raises ValueError when a step cannot be divided evenly among the ranks.
        """
        family: Adaptation = settings.family  # type: ignore[assignment]
        computing = 4 if settings.engine.precision == "float32" else 2
        paradigm, evaluation, num_ranks = settings.paradigm, settings.evaluation, settings.launch.num_ranks
        rows = paradigm.rows_per_forward(num_ranks)
        stored = 2 if getattr(settings.engine, "weights", "float32") == "bfloat16" else 4
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
            eval_bytes=computing if stored == 2 or family.lora or family.attention == "flash_attention_2" else 4,
            evaluation=Answers(rows=evaluation.batch_size, prompts=evaluation.batch_size, max_new_tokens=evaluation.max_new_tokens),
            sampled=Sampled.of(paradigm, settings) if isinstance(paradigm, Rl) else None,
            plain=isinstance(settings.engine, TorchSettings),
            ranks_of_machine=settings.launch.nproc,
            stored_bytes=stored,
            vllm_evaluation=evaluation.gpu_memory_frac if evaluation.engine == "vllm" else 0.0,
            vllm_sleeps=getattr(settings.rollout, "sleep", True),
            tensor_parallel=getattr(settings.rollout, "tensor_parallel", evaluation.tensor_parallel),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Parameter counts, in elements."""

    base: Mapping[Part, int]
    """Of the checkpoint, by part."""
    adapters: Mapping[Part, int]
    trained: Mapping[Part, int]
    """Parameters with a gradient: a part's own weights, or the adapters on it."""
    multiplied: int
    """Float32 trunk weights of matrix products: under bfloat16 autocast a rounded copy of them exists during a forward."""
    frozen_linear: int
    """Frozen linear weights under adapters, which are stored in the compute type because nothing updates them."""
    linear: int = 0
    """Weights of linear layers, which a frozen second copy of the model stores in the compute type."""
    largest: int = 0
    """The largest trained tensor."""
    largest_layer: int = 0
    """The layer of the language model with the most float32 weights of matrix products."""

    @property
    def total(self) -> int:
        """All parameters, held by each rank without ZeRO."""
        return sum(self.base.values()) + sum(self.adapters.values())

    @property
    def num_trained(self) -> int:
        """All parameters of the optimizer."""
        return sum(self.trained.values())


def count_parameters(anatomy: Anatomy, adaptation: Adaptation) -> Parameters:
    """The parameter counts of a model with its adapters and frozen parts."""
    base = {part: sum(weights.numel for weights in anatomy.weights if weights.part == part) for part in PARTS}
    lora = adaptation.lora
    adapters = {part: _adapters(anatomy, lora, part) for part in PARTS}
    own = {part: 0 if lora or part in adaptation.freeze else base[part] for part in PARTS}
    return Parameters(
        base=base,
        adapters=adapters,
        trained=adapters if lora else own,
        multiplied=0 if lora else sum(weights.numel for weights in anatomy.weights if weights.kind in ("linear", "experts", "patches")),
        frozen_linear=sum(weights.numel for weights in anatomy.weights if _in_compute_type(weights)) if lora else 0,
        linear=sum(weights.numel for weights in anatomy.weights if _in_compute_type(weights)),
        largest=max(_trained_sizes(anatomy, adaptation), default=0),
        largest_layer=0 if lora else _largest_layer(anatomy),
    )


def _trained_sizes(anatomy: Anatomy, adaptation: Adaptation) -> Iterator[int]:
    """Elements of single trained tensors: weights, or the two factors of an adapter."""
    lora = adaptation.lora
    for weights in anatomy.weights:
        if lora is None and weights.part not in adaptation.freeze:
            yield math.prod(weights.shape)
        if lora is not None and weights.kind == "linear" and weights.part in lora.targets:
            yield lora.rank * max(weights.shape)


def _largest_layer(anatomy: Anatomy) -> int:
    """Elements of the products of one decoder layer; the embeddings and the head stand outside of layers."""
    layers: dict[int, int] = {}
    for weights in anatomy.weights:
        if weights.part == "language" and weights.kind in ("linear", "experts"):
            for layer in weights.layers or ():
                layers[layer] = layers.get(layer, 0) + math.prod(weights.shape)
    return max(layers.values(), default=0)


def _in_compute_type(weights: Weights) -> bool:
    """Whether weights are stored in the compute type under adapters: those of linear layers, including an untied head."""
    return weights.kind == "linear" or weights.name == "lm_head.weight"


def _adapters(anatomy: Anatomy, lora: Lora | None, part: Part) -> int:
    if lora is None or part not in lora.targets:
        return 0
    chosen = (weights for weights in anatomy.weights if weights.kind == "linear" and weights.part == part)
    return sum(weights.count * lora.rank * sum(weights.shape) for weights in chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Lengths of a task's samples, in tokens."""

    prompt: float
    """Mean over samples, without the picture."""
    picture: int
    patches: int
    """Positions of the picture in the vision tower."""
    perception: float
    reasoning: float
    longest: int
    """Prompt, picture and response of the longest sample."""
    source: str
    """How the tokens were counted."""

    @property
    def total(self) -> float:
        """Mean tokens of a sample."""
        return self.prompt + self.picture + self.perception + self.reasoning

    @property
    def prefix(self) -> float:
        """Tokens up to the end of perception: the sequence that its gradient needs."""
        return self.prompt + self.picture + self.perception

    @property
    def share(self) -> float:
        """Perception's share of the supervised tokens."""
        return self.perception / (self.perception + self.reasoning)


def measure_lengths(task: Task, anatomy: Anatomy, *, split: str, num_samples: int = NUM_SAMPLES) -> Lengths:
    """Lengths over the first samples of a split."""
    tokens, source = token_counter(anatomy.directory)
    keys = (SampleKey(task=task.name, split=split, seed=0, index=index) for index in range(num_samples))
    samples = [task.sample(key) for key in keys]
    perception = [tokens(sample.demonstration.perception) for sample in samples]
    reasoning = [tokens(sample.demonstration.reasoning) + 1 for sample in samples]  # With the end of sequence.
    prompts = [tokens(sample.prompt.question) + CHAT_TOKENS for sample in samples]
    image = anatomy.image_tokens(*_size(samples[0]))
    return Lengths(
        prompt=fmean(prompts),
        picture=image.tokens,
        patches=image.patches,
        perception=fmean(perception),
        reasoning=fmean(reasoning),
        longest=image.tokens + max(sum(parts) for parts in zip(prompts, perception, reasoning, strict=True)),
        source=source,
    )


def token_counter(directory: Path | None) -> tuple[Callable[[str], int], str]:
    """A token counter and its description: the checkpoint's own tokenizer, or Qwen's pre-tokenizer if the checkpoint is not local."""
    from tokenizers import Regex, Tokenizer, pre_tokenizers

    if directory and (directory / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids), "the checkpoint's own tokenizer"
    pieces = pre_tokenizers.Split(Regex(QWEN_PIECES), "isolated")
    return lambda text: len(pieces.pre_tokenize_str(text)), "an estimate: pieces of Qwen's pre-tokenizer"


def _size(sample: Sample) -> tuple[int, int]:
    from PIL import Image

    assert sample.prompt.image is not None, "a task's prompt has a picture"
    return Image.open(io.BytesIO(sample.prompt.image)).size
