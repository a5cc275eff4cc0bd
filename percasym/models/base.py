"""The interface of a model family: prompts to token rows, rows to batches, loading and saving.

Shapes: B rows, T tokens (right padded), K spans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from percasym.models.adapt import PartModules
from percasym.models.anatomy import Anatomy
from percasym.spans.codec import Codec
from percasym.types import UNSUPERVISED, Prompt, Sample, Span

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One unpadded sequence: a prompt, and optionally a response."""

    ids: Sequence[int]
    """Prompt with expanded image placeholders, then the response."""
    labels: Sequence[int]
    """A `Span` for each supervised token, `UNSUPERVISED` elsewhere."""
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    """Image inputs of this row (pixel values, grids), specific to the family; empty without an image."""
    masked: Mapping[str, Tensor] = field(default_factory=dict)
    """Those of a masked picture of the same size, where tokens are weighed by it (`percasym.tokens`)."""

    def followed_by(self, ids: Sequence[int], labels: Sequence[int]) -> Row:
        """The row with tokens and their labels appended."""
        return replace(self, ids=(*self.ids, *ids), labels=(*self.labels, *labels))


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows padded on the right to one length."""

    ids: Tensor
    """[B, T] int64."""
    mask: Tensor
    """[B, T] int64, 1 on real tokens."""
    labels: Tensor
    """[B, T] int64: a `Span` on supervised tokens, `UNSUPERVISED` elsewhere."""
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    """Image inputs of all rows, as keyword arguments of the model's forward."""
    aligned: Mapping[str, Tensor] = field(default_factory=dict)
    """Per-token inputs such as positions, [..., T], as keyword arguments of the model's forward."""
    masked: Mapping[str, Tensor] = field(default_factory=dict)
    """Image inputs of masked pictures in place of `inputs`, where tokens are weighed by them."""

    @property
    def with_masked_pictures(self) -> Batch:
        """The same rows with masked pictures."""
        return replace(self, inputs=self.masked, masked={})

    @property
    def arguments(self) -> dict[str, Tensor]:
        """Keyword arguments of the trunk's forward.

        There is no attention mask: padding is on the right and attention is causal, so no real token attends to it,
        and the fast causal kernels apply.
        """
        return {"input_ids": self.ids, **self.inputs, **self.aligned}

    def to(self, device: torch.device) -> Batch:
        """A copy of the batch on a device."""
        return Batch(
            ids=self.ids.to(device),
            mask=self.mask.to(device),
            labels=self.labels.to(device),
            inputs={name: value.to(device) for name, value in self.inputs.items()},
            aligned={name: value.to(device) for name, value in self.aligned.items()},
        )

    def until(self, span: Span) -> Batch:
        """The shortest prefix that contains every token of `span`; the whole batch if it has none.

        Attention is causal, so this prefix gives the exact gradient of that span's loss.
        """
        columns = (self.labels == span).any(0).nonzero()
        if columns.numel() == 0:
            return self
        stop = int(columns[-1]) + 1
        return replace(
            self,
            ids=self.ids[:, :stop],
            mask=self.mask[:, :stop],
            labels=self.labels[:, :stop],
            aligned={name: value[..., :stop] for name, value in self.aligned.items()},
        )

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Batch:
        """Concatenate the rows of several batches, padded to the longest."""
        from torch import cat
        from torch.nn.functional import pad

        longest = max(batch.ids.shape[1] for batch in batches)

        def padded(tensors: Sequence[Tensor], filler: int) -> Tensor:
            return cat([pad(tensor, (0, longest - tensor.shape[-1]), value=filler) for tensor in tensors], dim=-2)

        first, image_inputs = batches[0], [batch.inputs for batch in batches if batch.inputs]
        return cls(
            ids=padded(
                [batch.ids for batch in batches], filler=int(first.ids[0, 0])
            ),  # Any text token: a chat never starts with an image token.
            mask=padded([batch.mask for batch in batches], filler=0),
            labels=padded([batch.labels for batch in batches], filler=UNSUPERVISED),
            inputs=joined_inputs(image_inputs),
            aligned={name: padded([batch.aligned[name] for batch in batches], filler=0) for name in first.aligned},
        )


def joined_inputs(inputs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Image inputs of several rows or batches, concatenated along their first axis; {} for none.

    Where the other axes differ (rows of more or fewer tiles), the smaller tensors are padded with zeros at their ends, as processors do.
    """
    from torch import cat
    from torch.nn.functional import pad

    def joined(tensors: Sequence[Tensor]) -> Tensor:
        shape = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
        if all(list(tensor.shape[1:]) == shape for tensor in tensors):
            return cat(list(tensors))
        missing = [[(0, most - size) for most, size in zip(shape, tensor.shape[1:], strict=True)] for tensor in tensors]
        return cat([pad(tensor, [n for pair in reversed(own) for n in pair]) for tensor, own in zip(tensors, missing, strict=True)])

    return {name: joined([own[name] for own in inputs]) for name in inputs[0]} if inputs else {}


class Family(Protocol):
    """One family of vision-language models; a frozen dataclass whose fields are `model.*`, those of `Adaptation` first."""

    parts: ClassVar[PartModules]
    """The modules of each part of the model, for `model.freeze` and `model.lora.targets`."""

    @property
    def checkpoint(self) -> str:
        """Directory, or hub id with its revision, that the model is loaded from."""
        ...

    def anatomy(self) -> Anatomy:
        """Every tensor of the model, from its configuration alone, for `percasym plan`."""
        ...

    def codec(self) -> Codec:
        """The grammar with the tokenizer of the checkpoint (loads no weights)."""
        ...

    def load(self) -> PreTrainedModel:
        """The Hugging Face model of the checkpoint in float32 on the CPU, with the configured adapters and frozen parts."""
        ...

    def save(self, model: PreTrainedModel, directory: Path) -> None:
        """Write a Hugging Face directory for `load` and plain transformers: weights or adapters, tokenizer, image processor."""
        ...

    def image_settings(self) -> Mapping[str, int]:
        """How images are resized, recorded in meta.json; training, rollout and evaluation all use `prompt`."""
        ...

    def limits(self) -> Callable[[Mapping[str, str], tuple[int, int]], None]:
        """A check of collected rows (`percasym.tasks.base.RowCheck`) that loads no weights; equal for equal checkpoints."""
        ...

    def prompt(self, prompt: Prompt) -> Row:
        """The tokens of a prompt up to the start of the response, and its image inputs."""
        ...

    def vllm_prompt(self, prompt: Prompt) -> tuple[Sequence[int], Image.Image | None]:
        """The prompt for vLLM, which expands placeholders and processes images itself: ids with one placeholder, and the image."""
        ...

    def row(self, sample: Sample) -> Row:
        """A prompt followed by its demonstration, with span labels."""
        ...

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Rows as one batch. Raises ValueError when the numbers of image tokens and image features of a row differ."""
        ...
