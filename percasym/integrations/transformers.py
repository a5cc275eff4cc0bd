"""transformers' Trainer with one weight for each response span.

    trainer = BalancedTrainer(model, args, train_dataset=rows, data_collator=SpanCollator(collator, tokenizer), balance="ngdiff")

Unlike a loss function passed to the Trainer, each span is averaged over its own tokens, counted over the whole optimizer step (all
micro-batches and ranks), and a strategy may read both gradients of the step. Everything else is the Trainer's: optimizer, schedule,
clipping, checkpoints, logging.

A step of a strategy that needs both gradients is two passes: the prefixes up to the perception (attention is causal, so they give its exact
gradient), then whole rows for reasoning. Every other step is one ordinary pass. Gradients, weights and losses are those of
`percasym.training.sft`; tests/unit/integrations compares both loops.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, is_dataclass, replace
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from percasym.balance.base import Balancer, BalanceState, Gramian, SpanStats, refuse_strategy_of_rl
from percasym.balance.registry import balancer
from percasym.config.schema import ConfigError
from percasym.engine.ranks import Ranks
from percasym.engine.span_gradients import SpanGradients
from percasym.engine.torch import WholeUpdater
from percasym.engine.vision_cache import VisionCache
from percasym.integrations.forward import SpanForward, check_losses, picture_tokens, span_labels, until_perception
from percasym.objectives.coefficients import coefficients, span_counts, span_sums
from percasym.training.sft import probe_due
from percasym.training.span_gradients import hidden_norm_means, span_means, step_metrics
from percasym.types import Span

COMPUTE = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Compute type of each `mixed_precision` of accelerate; float32 uses the type of the weights as they are."""


class BalanceMemory(TrainerCallback, ExportableState):
    """The state of the strategy; `trainer_state.json` of a checkpoint holds it, and a resumed run goes on with it."""

    def __init__(self, weight: float = 0.5, memory: Mapping[str, float] | None = None, strategy: str = "") -> None:
        self.balance = BalanceState(weight=weight, memory=memory or {})
        self.strategy = strategy

    def state(self) -> dict[str, Any]:
        """What `__init__` takes."""
        kept = {"weight": self.balance.weight, "memory": dict(self.balance.memory), "strategy": self.strategy}
        return {"args": kept, "attributes": {}}


@dataclass(slots=True, kw_only=True)
class Window:
    """One optimizer step of this rank: its micro-batches and what was measured so far."""

    batches: list[Any]
    labels: list[Tensor]
    """[B, T] of each micro-batch: spans, or UNSUPERVISED."""
    stats: SpanStats
    weight: float
    measured: bool
    """Whether both gradients are computed apart."""
    sums: Tensor
    """[2] float64: summed losses of the spans on this rank."""
    done: int = 0
    """Micro-batches whose backward is done."""
    gradients: SpanGradients = field(default_factory=SpanGradients)
    contexts: ExitStack = field(default_factory=ExitStack)

    @property
    def last(self) -> bool:
        """Whether the micro-batch in hand is the last one."""
        return self.done == len(self.batches)


class SpanBalanced:
    """What makes a `transformers.Trainer` balanced; a mixin that stands before the trainer's class.

    Batches have `spans` beside `labels`: 0 perception, 1 reasoning (`percasym.integrations.collate.SpanCollator` adds them). Logs have the
    numbers of docs/metrics.md beside the Trainer's own: `loss/<span>`, `share/...`, `balance/weight`, and `grad/...` where both gradients
    were measured; with `logging_steps` above 1 each is the mean over the steps since the last line. `evaluate` returns
    `eval_loss/<span>`.
    """

    # What the Trainer that comes after this class provides.
    args: Any
    accelerator: Any
    model: Any
    state: Any
    optimizer: Any
    callback_handler: Any

    def __init__(self, *args: Any, balance: str | Balancer = "ngdiff", probe_every: int | None = 0, **kwargs: Any) -> None:
        """`args` and `kwargs` are the Trainer's.

        - balance: a strategy (`percasym.Fixed(weight=0.3)`), or the name of one with its defaults (docs/strategies.md).
        - probe_every: steps between measurements of both gradients under a strategy that does not need them; 0 measures the first step
          only, None none. A measurement costs what `ngdiff` costs in every step.

        Raises ConfigError for options of the Trainer under which the balanced objective would not be exact.
        """
        self.balancer = balancer(balance)
        refuse_strategy_of_rl(self.balancer)
        super().__init__(*args, **kwargs)
        if probe_every is not None and probe_every < 0:
            raise ConfigError(f"probe_every must be at least 0, or None, got {probe_every}.")
        needs_both = self.balancer.needs == "gramian"
        if zero := self.accelerator.distributed_type == "DEEPSPEED":
            probe_every = None  # Its optimizer holds one gradient, that of the whole step.
        refuse_inexact(self, needs_both=needs_both, zero=zero)
        self.probe_every = None if self.accelerator.mixed_precision == "fp16" else probe_every
        start = self.balancer.start()
        self.add_callback(BalanceMemory(start.weight, start.memory, described(self.balancer)))  # type: ignore[attr-defined]
        self._forward = SpanForward.of(self.model, COMPUTE[self.accelerator.mixed_precision])
        self._hidden = self._forward.hidden_norms() if self.balancer.needs == "hidden" else None
        self._vision = _vision_cache(self.model)
        self._ranks = Ranks(self.args.process_index, self.args.world_size, self.args.device)
        self._image_tokens = picture_tokens(self.model.config)
        self._window: Window | None = None
        self._checked = False
        self._unlogged: list[dict[str, float]] = []
        self._eval_rows: list[Tensor] = []

    @property
    def balance(self) -> BalanceState:
        """The weight of perception and the memory of the strategy."""
        return self._memory.balance

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        """The micro-batches of a step, as the Trainer collects them; their spans are counted over all ranks here."""
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)  # type: ignore[misc]
        if batches:
            self._window = self._open(batches)
        return batches, num_items

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of one micro-batch; returns its part of the objective, without gradient.

        The mean of the parts over ranks, summed over micro-batches, is `loss/total` of the step.
        """
        window = self._window
        assert window is not None, "a step begins with get_batch_samples"
        model.train()
        if callable(getattr(self.optimizer, "train", None)):
            self.optimizer.train()
        inputs = self._prepare_inputs(inputs)  # type: ignore[attr-defined]
        labels = window.labels[window.done].to(self.args.device)
        if not self._checked:
            check_losses(self._forward, model, inputs, labels)
            self._checked = True
        if window.measured and window.done == 0:
            self._perception_gradient(model, window)
        window.done += 1
        if window.measured:
            return self._reasoning_gradient(model, window, inputs, labels)
        weights = {Span.perception: window.weight, Span.reasoning: 1 - window.weight}
        loss, nll = self._losses(model, inputs, labels, coefficients(labels, weights, window.stats.counts))
        loss = loss * self.args.world_size  # DDP and DeepSpeed average over ranks.
        self.accelerator.backward(loss, **self._backward_options)
        window.sums = window.sums + span_sums(nll, labels)
        if window.last:
            losses = span_means(self._ranks.all_reduce_sum(window.sums), window.stats.counts)
            self._close(window, replace(window.stats, losses=losses))
        return loss.detach()

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The Trainer's own loss, for evaluations; training does not call it."""
        return super().compute_loss(model, {k: v for k, v in inputs.items() if k != "spans"}, *args, **kwargs)  # type: ignore[misc]

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Any, Any, Any]:
        """The Trainer's own step, and the loss of each span; where only the loss is needed, one forward gives both."""
        if "spans" not in inputs or "labels" not in inputs:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys=ignore_keys)  # type: ignore[misc]
        inputs = self._prepare_inputs(inputs)  # type: ignore[attr-defined]
        labels = span_labels(inputs)
        with torch.no_grad():
            _, nll = self._losses(model, inputs, labels, torch.zeros(labels.shape, device=labels.device))
        of_span = [labels == span for span in Span]
        rows = torch.stack([nll.double().mul(own).sum(1) for own in of_span] + [own.sum(1).double() for own in of_span], dim=1)  # [B, 4]
        self._eval_rows.append(self.accelerator.gather_for_metrics(rows).cpu())  # Without the rows that fill up the last batch.
        if prediction_loss_only:
            return (rows[:, :2].sum() / rows[:, 2:].sum().clamp(min=1)).float(), None, None
        rest = {name: value for name, value in inputs.items() if name != "spans"}
        return super().prediction_step(model, rest, prediction_loss_only, ignore_keys=ignore_keys)  # type: ignore[misc]

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """The Trainer's own, with `<prefix>_loss/perception` and `<prefix>_loss/reasoning`: means over all tokens of a span."""
        self._eval_rows = []
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)  # type: ignore[misc]
        if self._eval_rows:
            sums = torch.cat(self._eval_rows).sum(0)
            for span, loss in zip(Span, span_means(sums[:2], [int(count) for count in sums[2:]]), strict=True):
                output.metrics[f"{metric_key_prefix}_loss/{span}"] = loss
        return output

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """The Trainer's log, with the numbers of the spans in its lines on training."""
        if "loss" in logs and self._unlogged:
            names = dict.fromkeys(name for values in self._unlogged for name in values)
            for name in names:
                defined = [values[name] for values in self._unlogged if values.get(name, torch.nan) == values.get(name)]
                if defined:
                    logs[name] = fmean(defined)
            self._unlogged = []
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def _open(self, batches: list[Any]) -> Window:
        """The window of a step: its counts over all ranks, and the weight where it is known before the first backward."""
        labels = [span_labels(batch) for batch in batches]
        of_rank = span_counts(own.cpu() for own in labels)
        perception, reasoning = (int(count) for count in self._ranks.all_reduce_sum(of_rank))
        stats = SpanStats(step=self.state.global_step, num_steps=self.state.max_steps, counts=(perception, reasoning))
        if stats.step == 0:
            self._memory.balance = self.balancer.start()
        if self.balancer.needs == "counts":
            self._memory.balance = self.balancer.step(self.balance, stats)
        probed = self.probe_every is not None and probe_due(stats.step, self.probe_every)
        return Window(
            batches=batches,
            labels=labels,
            stats=stats,
            weight=self.balance.weight,
            measured=self.balancer.needs == "gramian" or probed,
            sums=torch.zeros(len(Span), dtype=torch.float64, device=self.args.device),
        )

    def _perception_gradient(self, model: nn.Module, window: Window) -> None:
        """First pass: the gradient of L_p from the prefixes of all micro-batches."""
        with self.accelerator.no_sync(model), self._vision.cache_vision() if self._vision else nullcontext():
            for batch, labels in zip(window.batches, window.labels, strict=True):
                prefix = until_perception(self._prepare_inputs(batch), labels.to(self.args.device), self._image_tokens)  # type: ignore[attr-defined]
                own = labels[:, : prefix["input_ids"].shape[1]].to(self.args.device)
                loss, _ = self._losses(model, prefix, own, coefficients(own, {Span.perception: 1.0}, window.stats.counts))
                self.accelerator.backward(loss)
        window.gradients.keep(Span.perception, self._updater().take())
        window.contexts.enter_context(self._vision.reuse_vision() if self._vision else nullcontext())

    def _reasoning_gradient(self, model: nn.Module, window: Window, inputs: dict[str, Any], labels: Tensor) -> Tensor:
        """Second pass: the gradient of L_r from whole rows; after the last micro-batch, the weighted sum of both gradients."""
        with self.accelerator.no_sync(model):
            loss, nll = self._losses(model, inputs, labels, coefficients(labels, {Span.reasoning: 1.0}, window.stats.counts))
            self.accelerator.backward(loss)
        window.sums = window.sums + span_sums(nll, labels)
        if not window.last:
            return torch.zeros((), device=loss.device)
        window.contexts.close()
        updater = self._updater()
        window.gradients.keep(Span.reasoning, updater.take())
        perception, reasoning, cross = window.gradients.products().tolist()
        losses = span_means(self._ranks.all_reduce_sum(window.sums), window.stats.counts)
        stats = replace(window.stats, gramian=Gramian(perception=perception, reasoning=reasoning, cross=cross), losses=losses)
        if self.balancer.needs == "gramian":
            self._memory.balance = self.balancer.step(self.balance, stats)
            window.weight = self.balance.weight
        updater.put(window.gradients.combined({Span.perception: window.weight, Span.reasoning: 1 - window.weight}))
        values = self._close(window, stats)
        return torch.tensor(values["loss/total"], dtype=loss.dtype, device=loss.device)

    def _close(self, window: Window, stats: SpanStats) -> dict[str, float]:
        """After the last backward: the weight of the next step where the strategy moves it then, and the numbers to log."""
        if self._hidden is not None:
            stats = replace(stats, hidden=hidden_norm_means(self._ranks.all_reduce_sum(self._hidden.take()), stats.counts))
        values = step_metrics(stats, window.weight)
        if self.balancer.needs in ("losses", "hidden"):
            self._memory.balance = self.balancer.step(self.balance, stats)
        self._unlogged.append(values)
        self._window = None
        return values

    def _losses(self, model: nn.Module, inputs: Mapping[str, Any], labels: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
        """sum_t factor_t nll_t and the [B, T] losses, through whatever wraps the model."""
        rest = {name: value for name, value in inputs.items() if name not in ("labels", "spans")}
        with self.compute_loss_context_manager():  # type: ignore[attr-defined]
            return model(**rest, span_coefficients=factors, span_labels=labels)

    def _updater(self) -> WholeUpdater:
        """Sums the open gradient over ranks, once, and takes or puts it."""
        return WholeUpdater(self.model, self.optimizer, self._ranks)

    @property
    def _backward_options(self) -> dict[str, Any]:
        return {"scale_wrt_gas": False} if self.accelerator.distributed_type == "DEEPSPEED" else {}

    @property
    def _memory(self) -> BalanceMemory:
        return next(callback for callback in self.callback_handler.callbacks if isinstance(callback, BalanceMemory))

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        if "spans" not in self._signature_columns:  # type: ignore[attr-defined]
            self._signature_columns.append("spans")  # type: ignore[attr-defined]

    def _load_callback_state(self) -> None:
        """Restore the strategy from a checkpoint, which the Trainer does on request only.

        Raises ConfigError where the checkpoint is of another strategy: its memory means nothing to this one.
        """
        saved = self.state.stateful_callbacks.get(BalanceMemory.__name__)
        super()._load_callback_state()  # type: ignore[misc]
        if not saved:
            return
        kept, own = BalanceMemory(**(saved[0] if isinstance(saved, list) else saved)["args"]), described(self.balancer)
        if kept.strategy not in ("", own):  # Checkpoints of earlier versions do not name theirs.
            raise ConfigError(
                f"The checkpoint was written under {kept.strategy}, and this trainer has {own}. Resume with the same strategy, or begin a "
                "new run from the weights of the checkpoint."
            )
        self._memory.balance = kept.balance


class BalancedTrainer(SpanBalanced, Trainer):
    """`transformers.Trainer` with a weight for each span: `SpanBalanced` documents `balance`, `probe_every` and the logs.

    Exact on one process and under DDP, with any number of accumulation steps. Under DeepSpeed (ZeRO 0 to 3) the strategies that need
    one backward are exact, and those that need both gradients are refused. Refused as well: FSDP, DataParallel, tensor, context and
    sequence parallelism, torch_compile, label smoothing, `compute_loss_func` and Liger's fused loss.
    """


def described(strategy: Balancer) -> str:
    """A strategy with its options, as a checkpoint names it.

    >>> described(balancer("fixed"))
    'Fixed(weight=0.5)'
    """
    return repr(strategy) if is_dataclass(strategy) else type(strategy).__name__


def refuse_inexact(trainer: Any, *, needs_both: bool, zero: bool) -> None:
    """Raise ConfigError for options under which the balanced objective would not be what it says."""
    args, accelerator = trainer.args, trainer.accelerator
    name = type(trainer.balancer).__name__
    refused = {
        f"{name} measures both gradients, and DeepSpeed's optimizer holds one. Under DeepSpeed use Hidden, its approximation with one "
        "backward, a strategy that reads losses, or percasym's own loop (train.py engine=deepspeed)": needs_both and zero,
        f"{name} compares gradients, which fp16 scales by a moving factor. Use bf16": needs_both and accelerator.mixed_precision == "fp16",
        "FSDP flattens the parameters whose losses are computed here. Use DDP or DeepSpeed": trainer.is_fsdp_enabled,
        "nn.DataParallel runs replicas that count their tokens apart. Start one process for each GPU (torchrun)": args.n_gpu > 1,
        "Tensor, context and sequence parallelism share the tokens of a row between ranks. Use DDP or DeepSpeed":
            getattr(accelerator, "parallelism_config", None) is not None,
        "torch_compile is not supported. Turn it off": bool(args.torch_compile),
        "label_smoothing_factor changes the loss of a token. Set it to 0": args.label_smoothing_factor != 0,
        "compute_loss_func would replace the balanced objective. Leave it out": trainer.compute_loss_func is not None,
        "use_liger_kernel replaces the forward. Turn it off": bool(args.use_liger_kernel),
    }  # fmt: skip
    for reason, applies in refused.items():
        if applies:
            raise ConfigError(f"{reason}.")


def _vision_cache(model: Any) -> VisionCache | None:
    """The cache of a frozen vision tower; None where there is none, or it is trained."""
    base = model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model
    return VisionCache.of(base) if hasattr(base, "get_encoder") else None
