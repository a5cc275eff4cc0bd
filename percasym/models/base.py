"""What a model family is: how a prompt becomes tokens, and rows become a batch.

Shapes: B rows, T tokens (right padded), K spans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from percasym.models.adapt import Names
from percasym.models.anatomy.base import Anatomy
from percasym.spans.codec import Codec
from percasym.types import UNSUPERVISED, Prompt, Sample, Span

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One sequence before batching: a prompt, and the tokens that follow it."""

    ids: Sequence[int]
    """Prompt with expanded image placeholders, then the response."""
    labels: Sequence[int]
    """A `Span` for each supervised token, `UNSUPERVISED` elsewhere."""
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    """The family's image inputs of this row (pixel values, grids); empty without an image."""


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
    """The family's image inputs of all rows, as keyword arguments of the model's forward."""
    aligned: Mapping[str, Tensor] = field(default_factory=dict)
    """The family's per-token inputs (positions), [..., T], likewise keyword arguments."""

    @property
    def arguments(self) -> dict[str, Tensor]:
        """Keyword arguments of the trunk's forward.

        No attention mask: padding is on the right and attention is causal, so no real token sees it,
        and the fast causal kernels apply.
        """
        return {"input_ids": self.ids, **self.inputs, **self.aligned}

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(
            ids=self.ids.to(device),
            mask=self.mask.to(device),
            labels=self.labels.to(device),
            inputs={name: value.to(device) for name, value in self.inputs.items()},
            aligned={name: value.to(device) for name, value in self.aligned.items()},
        )

    def until(self, span: Span) -> Batch:
        """The shortest prefix that holds every token of `span`.

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
        """The rows of several batches as one."""
        from torch import cat
        from torch.nn.functional import pad

        longest = max(batch.ids.shape[1] for batch in batches)

        def together(tensors: Sequence[Tensor], filler: int) -> Tensor:
            return cat([pad(tensor, (0, longest - tensor.shape[-1]), value=filler) for tensor in tensors], dim=-2)

        first, seen = batches[0], [batch.inputs for batch in batches if batch.inputs]
        return cls(
            ids=together([batch.ids for batch in batches], filler=int(first.ids[0, 0])),  # A text token: no picture starts a chat.
            mask=together([batch.mask for batch in batches], filler=0),
            labels=together([batch.labels for batch in batches], filler=UNSUPERVISED),
            inputs={name: cat([inputs[name] for inputs in seen]) for name in seen[0]} if seen else {},
            aligned={name: together([batch.aligned[name] for batch in batches], filler=0) for name in first.aligned},
        )


class Family(Protocol):
    """One family of vision-language models; a frozen dataclass whose fields are `model.*`, those of `Adaptation` first."""

    parts: ClassVar[Names]
    """The modules of each part of the model: what `model.freeze` and `model.lora.targets` choose among."""

    def anatomy(self) -> Anatomy:
        """Every tensor of the model, counted from its configuration alone: what `percasym plan` is made of."""
        ...

    def codec(self) -> Codec:
        """The tokenizer of the checkpoint under the grammar (loads no weights)."""
        ...

    def load(self) -> PreTrainedModel:
        """The Hugging Face model of the checkpoint, in float32, on the CPU; adapters and frozen parts as the fields say."""
        ...

    def save(self, model: PreTrainedModel, directory: Path) -> None:
        """Write a Hugging Face directory that `load` and plain transformers can read: weights or adapters, and all that belongs to them."""
        ...

    def images(self) -> Mapping[str, int]:
        """What becomes of a picture, for the record: training, rollout and evaluation all see it through `prompt`."""
        ...

    def prompt(self, prompt: Prompt) -> Row:
        """The tokens of a prompt up to where the response starts, and its image inputs."""
        ...

    def served(self, prompt: Prompt) -> tuple[Sequence[int], Image.Image | None]:
        """What an engine is given that expands placeholders and reads pictures itself (vLLM): one placeholder, and the picture."""
        ...

    def row(self, sample: Sample) -> Row:
        """A prompt followed by its demonstration, labelled for supervision."""
        ...

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Rows as one batch; every row's image tokens must equal its image features."""
        ...
