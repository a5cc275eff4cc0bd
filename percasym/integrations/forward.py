"""The forward of a model inside someone else's trainer: weighted token losses where they are asked for, its own forward otherwise.

The losses go through the model's own `forward`, so whatever wraps the model (DDP, DeepSpeed) wraps them too. Unlike the loss of
transformers, the head is applied to supervised positions only (`percasym.objectives.token_nll`). Shapes: B rows, T tokens.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from percasym.config.schema import ConfigError
from percasym.engine.hidden_norms import HiddenNorms
from percasym.models.mode import evaluating
from percasym.objectives.token_nll import TokenNll, supervised
from percasym.types import UNSUPERVISED, Span

ROW_INPUTS = {"input_ids", "attention_mask", "labels", "spans", "token_type_ids", "mm_token_type_ids", "position_ids", "inputs_embeds"}
"""Inputs of a model with one column for each token."""
PICTURE_INPUTS = ("pixel", "image", "video", "batch_num_images")
"""How the names of inputs begin that belong to pictures, whatever their shape."""
CHECKED_COLUMNS = 16
"""Last columns of a batch whose losses are compared with the model's own logits."""
TOLERANCE = 0.05
"""Largest difference of a token's loss, in nats (our choice: bfloat16 differs by a few thousandths, a left-out factor by much more)."""


class SpanForward:
    """Takes the place of `model.forward`; a call without `span_coefficients` is the model's own forward.

    A callable object and not a closure, so that a deep copy of the model gets a forward of its own.
    """

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        """`dtype` is the compute type of trunk and head (autocast).

        Raises ConfigError for a model without a trunk `model` and a head `lm_head`.
        """
        base = model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model
        if not (isinstance(getattr(base, "model", None), nn.Module) and isinstance(getattr(base, "lm_head", None), nn.Module)):
            raise ConfigError(
                f"{type(base).__name__} has no trunk `model` with a head `lm_head`, so the loss of each token is not known. Use a causal "
                "language model or vision-language model of transformers that has both."
            )
        self._own, self._losses = model.forward, TokenNll(base, dtype=dtype)
        self._hidden: HiddenNorms | None = None
        self.__signature__ = inspect.signature(model.forward)

    @classmethod
    def of(cls, model: Any, dtype: torch.dtype) -> SpanForward:
        """The forward of `model`, put in place if it is not there yet."""
        if not isinstance(model.forward, cls):
            model.forward = cls(model, dtype)
        return model.forward

    def hidden_norms(self) -> HiddenNorms:
        """Start to measure the gradient norms at the last hidden state in every backward, and return the object that sums them."""
        self._hidden = self._hidden or HiddenNorms(self._losses.model.model)
        return self._hidden

    def __call__(self, *args: Any, span_coefficients: Tensor | None = None, span_labels: Tensor | None = None, **inputs: Any) -> Any:
        """(sum_t coefficient_t nll_t, the [B, T] losses without gradient) from coefficients and labels [B, T]; else the own output."""
        if span_coefficients is None or span_labels is None:
            return self._own(*args, **inputs)
        with torch.autocast(span_labels.device.type, enabled=False):  # TokenNll enters the type it computes in by itself.
            loss, nll = self._losses(supervised(span_labels), span_coefficients, **inputs)
        if self._hidden is not None and loss.requires_grad:
            self._hidden.attach(loss, span_coefficients, span_labels)
        return loss, nll


def span_labels(batch: Mapping[str, Any]) -> Tensor:
    """[B, T] int64: the span of each token with a loss, UNSUPERVISED elsewhere.

    Tokens with label -100, and the first one of each row, which nothing predicts, have no loss, as in transformers.

    Raises ConfigError for a batch without `labels` or `spans`, for a supervised token without a span, and for labels that are not the
    tokens themselves.
    """
    for column in ("labels", "spans"):
        if column not in batch:
            raise ConfigError(
                f"The batch has no column {column} (it has {', '.join(sorted(batch))}). Wrap the collator in "
                "percasym.integrations.collate.SpanCollator, or give the column; remove_unused_columns=False keeps it."
            )
    ids, labels, spans = batch["input_ids"], batch["labels"], batch["spans"]
    if spans.shape != labels.shape:
        raise ConfigError(f"spans must have the shape of labels, {list(labels.shape)}, got {list(spans.shape)}.")
    with_loss = labels != -100
    with_loss[:, 0] = False
    if (with_loss & (spans != Span.perception) & (spans != Span.reasoning)).any():
        row, column = ((with_loss & (spans != Span.perception) & (spans != Span.reasoning)).nonzero()[0]).tolist()
        raise ConfigError(
            f"Token {column} of row {row} has a label and span {int(spans[row, column])}; a span is 0 (perception) or 1 (reasoning). "
            "Set its label to -100 if it has no loss."
        )
    if (with_loss & (labels != ids)).any():
        raise ConfigError("labels differ from input_ids on tokens with a loss. Spans are for the loss of the next token only.")
    return torch.where(with_loss, spans, UNSUPERVISED)


def until_perception(batch: Mapping[str, Any], labels: Tensor, image_tokens: frozenset[int]) -> dict[str, Any]:
    """The batch up to the last token of perception, or of a picture where one comes later; the whole batch if it has no perception.

    Attention is causal, so this prefix gives the exact gradient of the loss of perception.

    Raises ConfigError for an input of which it is not known whether it has one column for each token.
    """
    ids = batch["input_ids"]
    needed = labels == Span.perception
    if not needed.any():
        return dict(batch)
    for token in image_tokens:
        needed = needed | (ids == token)
    stop = int(needed.any(0).nonzero()[-1]) + 1
    cut: dict[str, Any] = {}
    for name, value in batch.items():
        if name in ROW_INPUTS and isinstance(value, Tensor):
            cut[name] = value[..., :stop] if name == "position_ids" else value[:, :stop]
        elif name.startswith(PICTURE_INPUTS) or not (isinstance(value, Tensor) and ids.shape[1] in value.shape):
            cut[name] = value
        else:
            raise ConfigError(
                f"The batch has {name} of shape {list(value.shape)}, and it is not known whether it can be cut with the tokens, as a "
                "strategy that measures both gradients does. Use balance=hidden or one that reads losses, with probe_every=None."
            )
    if "cu_seq_lens_q" in batch:
        raise ConfigError("Packed rows (padding_free, packing) cannot be cut to their perception. Pad the rows instead.")
    return cut


def picture_tokens(config: Any) -> frozenset[int]:
    """The ids of image and video tokens in a model's configuration."""
    names = ("image_token_id", "image_token_index", "video_token_id", "video_token_index")
    return frozenset(int(token) for name in names if isinstance(token := getattr(config, name, None), int))


@torch.no_grad()
def check_losses(forward: SpanForward, model: Any, batch: Mapping[str, Any], labels: Tensor) -> None:
    """Compare the losses of the last columns of a batch with the model's own logits.

    A head that does more than a product (logit scale, soft cap) would otherwise be trained on another loss without a word.

    Raises ConfigError where they differ.
    """
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "spans")}
    with evaluating(model):  # Dropout differs from pass to pass.
        _, nll = model(**inputs, span_coefficients=torch.zeros(labels.shape, device=labels.device), span_labels=labels)
        keep = min(CHECKED_COLUMNS, labels.shape[1] - 1)
        options = {"logits_to_keep": keep + 1} if "logits_to_keep" in forward.__signature__.parameters else {}
        logits = model(**inputs, **options, use_cache=False).logits[:, -keep - 1 : -1].float()
    at = labels[:, -keep:] != UNSUPERVISED
    own = cross_entropy(logits[at], batch["input_ids"][:, -keep:][at], reduction="none")
    gap = float((own - nll[:, -keep:][at]).abs().max()) if at.any() else 0.0
    if not gap <= TOLERANCE:
        raise ConfigError(
            f"The loss of a token differs by {gap:.2g} nats from the logits of {type(model).__name__}: its head does more than a matrix "
            "product. percasym cannot balance this model."
        )
