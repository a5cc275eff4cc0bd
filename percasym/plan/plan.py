"""`percasym plan`: parameters, memory of one GPU and FLOPs of a step of a configuration, before anything is downloaded or started."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations

from rich.console import Group, RenderableType
from rich.table import Table

from percasym.config.schema import ConfigError
from percasym.config.settings import Settings
from percasym.models.adapt import PARTS, Adaptation
from percasym.models.anatomy import Anatomy
from percasym.plan import memory
from percasym.plan.inputs import Layout, Lengths, Parameters, Sampled, count_parameters, measure_lengths
from percasym.plan.work import Work, work

MAX_CHANGES = 4
"""Most changes that a plan combines in search of one that fits."""
GPU_GB = 80.0
"""Default memory of one GPU in 10^9 bytes (A100, H100)."""


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
        """Peak bytes of one GPU by component in a training step."""
        share = 0.0 if self.layout.vllm_sleeps else self._vllm_rollouts or self.layout.vllm_evaluation  # They share one engine.
        return self._with_vllm(memory.training(self.anatomy, self.parameters, self.layout, self.lengths), share)

    @property
    def evaluation(self) -> memory.Bytes:
        """Peak bytes of one GPU by component in an evaluation."""
        share = self._vllm_rollouts if not self.layout.vllm_sleeps or self.layout.vllm_evaluation else 0.0  # They share one engine.
        held = memory.evaluation(self.anatomy, self.parameters, self.layout, self.lengths)
        return self._with_vllm(held, share or self.layout.vllm_evaluation)

    @property
    def rollouts(self) -> memory.Bytes:
        """Peak bytes of one GPU by component while rollouts are sampled and rewarded; empty for supervised training."""
        return self._with_vllm(memory.rollouts(self.anatomy, self.parameters, self.layout, self.lengths), self._vllm_rollouts)

    @property
    def peak(self) -> int:
        """The maximum of the three."""
        return max(sum(held.values()) for held in (self.training, self.evaluation, self.rollouts))

    @property
    def fits(self) -> bool:
        """Whether the peak fits into one GPU, and vLLM into its share of it."""
        return self.peak <= self.gpu_bytes and self.vllm_fits

    @property
    def vllm_fits(self) -> bool:
        """Whether the share of a GPU that vLLM takes holds its weights and one sequence."""
        return memory.vllm_bytes(self.anatomy, self.parameters, self.layout, self.lengths) <= self.vllm_share

    @property
    def vllm_share(self) -> int:
        """Bytes of one GPU that vLLM takes; 0 without it."""
        return round((self._vllm_rollouts or self.layout.vllm_evaluation) * self.gpu_bytes)

    def remedies(self) -> Iterator[tuple[str, int]]:
        """Single changes of the configuration that lower the peak, each with the new peak."""
        for words, change in self._changes().items():
            changed = replace(self, layout=change(self.layout))
            if (peak := changed.peak) < self.peak and changed.vllm_fits:
                yield words, peak

    def fitting(self) -> tuple[str, int] | None:
        """The first of the smallest sets of changes with which it fits, and its peak; None where `MAX_CHANGES` do not suffice."""
        changes = self._changes()
        for number in range(1, MAX_CHANGES + 1):
            for chosen in combinations(changes, number):
                keys = [word.partition("=")[0] for words in chosen for word in words.split()]
                if len(keys) == len(set(keys)):
                    layout = reduce(lambda held, words: changes[words](held), chosen, self.layout)
                    if (changed := replace(self, layout=layout)).fits:
                        return " ".join(chosen), changed.peak
        return None

    def _changes(self) -> dict[str, Callable[[Layout], Layout]]:
        """Words of a command line -> what they change in any layout."""
        layout, evaluation, sampled = self.layout, self.layout.evaluation, self.layout.sampled
        fewer = max(1, evaluation.rows // 4)
        stage_3 = "engine=deepspeed engine.zero_stage=3" if layout.plain else "engine.zero_stage=3"
        rounded: dict[str, Callable[[Layout], Layout]] = {
            f"{stage_3} engine.weights=bfloat16": lambda held: replace(held, zero_stage=3, stored_bytes=2, eval_bytes=held.computing_bytes)
        }
        changes: dict[str, Callable[[Layout], Layout]] = {
            stage_3: lambda held: replace(held, zero_stage=3 if held.num_ranks > 1 else held.zero_stage),
            **(rounded if layout.computing_bytes == 2 else {}),  # A run in float32 refuses them.
            "engine.offload=true": lambda held: replace(held, offload=held.zero_stage > 0),
            "model.gradient_checkpointing=true": lambda held: replace(held, checkpointing=True),
            "paradigm.micro_batch_size=1": lambda held: replace(held, rows=1),
            f"evaluation.batch_size={fewer}": lambda held: replace(
                held, evaluation=replace(held.evaluation, rows=fewer, prompts=fewer)
            ),
        }  # fmt: skip
        if layout.num_ranks > 1 and not layout.vllm_evaluation and self._vllm_rollouts:  # They share the engine of the rollouts.
            changes["evaluation.engine=vllm"] = lambda held: replace(held, vllm_evaluation=self._vllm_rollouts)
        elif layout.num_ranks > 1 and not layout.vllm_evaluation:
            words = f"evaluation.engine=vllm evaluation.tensor_parallel={layout.num_ranks}"
            changes[words] = lambda held: replace(held, vllm_evaluation=0.4, tensor_parallel=held.num_ranks)
        if self.vllm_share and layout.tensor_parallel < layout.num_ranks:
            words = f"{self._vllm_section}.tensor_parallel={layout.num_ranks}"
            changes[words] = lambda held: replace(held, tensor_parallel=held.num_ranks)
        if sampled:
            changes["paradigm.kl=0"] = lambda held: replace(held, sampled=replace(_sampled(held), reference=False))
        if sampled and sampled.decoded:
            prompts = max(1, sampled.decoded.prompts // 4)
            rows = prompts * sampled.group_size
            decoded = replace(sampled.decoded, rows=rows, prompts=prompts)
            changes[f"rollout.batch_size={rows}"] = lambda held: replace(held, sampled=replace(_sampled(held), decoded=decoded))
        return changes

    @property
    def _vllm_section(self) -> str:
        """The section of the configuration that starts vLLM."""
        return "rollout" if self._vllm_rollouts else "evaluation"

    @property
    def _vllm_rollouts(self) -> float:
        return self.layout.sampled.vllm_frac if self.layout.sampled else 0.0

    def _with_vllm(self, held: memory.Bytes, share: float) -> memory.Bytes:
        """Add the share of the GPU that vLLM takes."""
        return {**held, "vLLM": round(share * self.gpu_bytes)} if share and held else held


def plan(settings: Settings, *, gpu_gb: float = GPU_GB, lengths: Lengths | None = None) -> Plan:
    """The plan of a configuration; `lengths` are those of its samples where they have been measured before.

    Raises ConfigError when the family has no `anatomy`, or the task or checkpoint cannot be read.
    """
    family = settings.family
    if not 0 < gpu_gb < math.inf:
        raise ConfigError(f"--gpu-gb must be a number above 0, got {gpu_gb:g}.")
    if not isinstance(family, Adaptation) or not hasattr(family, "anatomy"):
        raise ConfigError(
            f"percasym plan counts the tensors of model=qwen3vl and model=internvl35, and {type(family).__name__} has no list of its "
            "tensors (the method anatomy). Try one step instead."
        )
    try:
        anatomy = family.anatomy()
        layout = Layout.of(settings)
        lengths = lengths or measure_lengths(settings.task, anatomy, split="train_sft")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    parameters = count_parameters(anatomy, family)
    step = work(anatomy, parameters, layout, lengths)
    return Plan(anatomy=anatomy, parameters=parameters, layout=layout, lengths=lengths, work=step, gpu_bytes=round(gpu_gb * 1e9))


def table(plan: Plan) -> RenderableType:
    """The plan as printed: parameters, memory of one GPU, sample lengths, and FLOPs of a step."""
    return Group(_parameters(plan), _memory(plan), *_lines(plan))


def _parameters(plan: Plan) -> Table:
    shown = Table("parameters", *PARTS, "all", title_justify="left")
    base, trained = plan.parameters.base, plan.parameters.trained
    shown.add_row("checkpoint", *(_count(base[part]) for part in PARTS), _count(sum(base.values())))
    if plan.layout.adapters:
        adapters = plan.parameters.adapters
        shown.add_row("adapters", *(_count(adapters[part]) for part in PARTS), _count(sum(adapters.values())))
    shown.add_row("trained", *(_count(trained[part]) for part in PARTS), _count(plan.parameters.num_trained))
    return _numbers(shown)


def _memory(plan: Plan) -> Table:
    columns = {"training": plan.training, "evaluation": plan.evaluation} | ({"rollouts": plan.rollouts} if plan.rollouts else {})
    shown = Table(f"GB on each of {plan.layout.num_ranks} GPU{'s' * (plan.layout.num_ranks > 1)}", *columns)
    for part in dict.fromkeys(part for held in columns.values() for part in held):
        sizes = [held.get(part, 0) for held in columns.values()]
        if any(sizes):
            shown.add_row(part, *map(_gb, sizes))
    shown.add_section()
    shown.add_row("all", *(_gb(sum(held.values())) for held in columns.values()))
    return _numbers(shown)


def _lines(plan: Plan) -> list[str]:
    lengths, step = plan.lengths, plan.work
    lines = [
        f"A sample: {lengths.total:,.0f} tokens (longest {lengths.longest:,}), {lengths.picture} of them the picture, "
        f"{lengths.perception:.0f} perception and {lengths.reasoning:,.0f} reasoning: {100 * lengths.share:.1f} % of what is supervised. "
        f"Counted with {lengths.source}.",
        f"A step: {step.tokens:,.0f} tokens, {step.supervised:,.0f} of them supervised, {step.flops:.2e} operations "
        f"({step.model_flops:.2e} without computing anything twice"
        f"{f', {step.sampling_flops:.2e} of them sampling' if step.sampling_flops else ''}).",
    ]
    held = memory.host(plan.parameters, plan.layout)
    kept = f", {_gb(held['training'])} GB in training" if held["training"] else ""
    saving = f", {_gb(held['saving'])} GB while a checkpoint is written" if held["saving"] else ""
    lines.append(f"Host memory of a machine: {_gb(held['loading'])} GB while its first rank loads the model{kept}{saving}.")
    lines.append(f"A checkpoint: {_gb(memory.checkpoint_bytes(plan.parameters, plan.layout))} GB.")
    limits = {"evaluation": plan.layout.evaluation} | ({"rollout": plan.layout.sampled} if plan.layout.sampled else {})
    for section, limit in limits.items():
        if plan.lengths.perception + plan.lengths.reasoning > limit.max_new_tokens:
            lines.append(f"{section}.max_new_tokens={limit.max_new_tokens} cuts the mean response short. Raise it.")
    size = f"{plan.gpu_bytes / 1e9:g} GB"
    if plan.fits:
        return [*lines, f"It fits: {_gb(plan.peak)} of {size}."]
    if not plan.vllm_fits:
        needed, section = memory.vllm_bytes(plan.anatomy, plan.parameters, plan.layout, plan.lengths), plan._vllm_section
        lines.append(
            f"vLLM does not fit: its weights and one sequence need {_gb(needed)} GB of each GPU, and it takes {_gb(plan.vllm_share)}. "
            f"Raise {section}.tensor_parallel or {section}.gpu_memory_frac."
        )
    if plan.peak > plan.gpu_bytes:
        lines.append(f"It does not fit: {_gb(plan.peak)} of {size}.")
    remedies = dict(plan.remedies())
    if plan.vllm_fits:
        lines += [f"  {words}: {_gb(peak)} GB{', which fits' if peak <= plan.gpu_bytes else ''}" for words, peak in remedies.items()]
    if not plan.vllm_fits or not any(peak <= plan.gpu_bytes for peak in remedies.values()):
        found = plan.fitting()
        lines.append(
            f"No set of {MAX_CHANGES} of these fits. Choose a smaller model.size"
            f"{'' if plan.layout.adapters else ', adapters (model.lora.rank=16)'}, or more and larger GPUs."
            if found is None
            else f"{'These fit together' if ' ' in found[0] else 'This fits'}, {_gb(found[1])} GB: {found[0]}"
        )
    return lines


def _numbers(shown: Table) -> Table:
    for column in shown.columns[1:]:
        column.justify = "right"
    return shown


def _sampled(layout: Layout) -> Sampled:
    assert layout.sampled is not None, "changes of the rollouts are offered where there are some"
    return layout.sampled


def _count(number: int) -> str:
    return f"{number:,}"


def _gb(number: int) -> str:
    return f"{number / 1e9:.{1 if number >= 10**9 else 3}f}" if number else "-"
