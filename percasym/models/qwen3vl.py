"""Qwen3-VL: how its prompts become tokens and positions.

Unlike the stock processor, image placeholders are expanded on token ids (no torchvision, no text round
trip) and the three rotary position axes are computed once per batch, so a forward needs neither an
attention mask nor a loop over rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from percasym.models import chat, checkpoint, released
from percasym.models.adapt import Adaptation, Names, adapt
from percasym.models.anatomy.base import Anatomy, configuration
from percasym.models.anatomy.qwen3vl import qwen3vl
from percasym.models.base import Batch, Row
from percasym.spans.codec import Codec
from percasym.types import Prompt, Sample

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor
    from transformers import PreTrainedModel

SIZES = released.sizes("qwen3vl")
IMAGE = "<|image_pad|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3VL(Adaptation):
    """The Qwen3-VL family (`model=qwen3vl`)."""

    parts: ClassVar[Names] = {
        "language": ("model.language_model", "lm_head"),
        "projector": ("model.visual.merger", "model.visual.deepstack_merger_list"),
        "vision": ("model.visual",),
    }

    size: str = "tiny"
    """tiny (travels with the package), or 2B, 4B, 8B, 30B-A3B, 32B (the Instruct checkpoints) from the hub."""
    path: str | None = None
    """A local Hugging Face directory or a hub id, in place of `size`."""

    def __post_init__(self) -> None:
        Adaptation.__post_init__(self)
        if self.size not in ("tiny", *SIZES):
            raise ValueError(f"model.size must be one of tiny, {', '.join(SIZES)}, got {self.size!r}.")

    @property
    def checkpoint(self) -> str:
        """Directory or hub id the model is loaded from."""
        return checkpoint.chosen("qwen3vl", self.size, self.path)

    def anatomy(self) -> Anatomy:
        """Every tensor of the model, counted from its configuration alone."""
        return qwen3vl(*configuration("qwen3vl", self.checkpoint))

    def codec(self) -> Codec:
        """The tokenizer of the checkpoint under the grammar (loads no weights)."""
        return chat.codec(self.checkpoint)

    def load(self) -> PreTrainedModel:
        """`Qwen3VLForConditionalGeneration` in float32 on the CPU, with its adapters and frozen parts."""
        return adapt(checkpoint.model(self.checkpoint, self.attention), self, self.parts)

    def save(self, model: PreTrainedModel, directory: Path) -> None:
        """Write `model` with the tokenizer, image processor and chat template of this checkpoint."""
        checkpoint.save(model, self.checkpoint, directory)

    def images(self) -> Mapping[str, int]:
        """A picture keeps its shape; its area is brought between two bounds."""
        processor = checkpoint.image_processor(self.checkpoint)
        bounds = {"min_pixels": processor.size["shortest_edge"], "max_pixels": processor.size["longest_edge"]}
        return {**bounds, "pixels_a_token": (processor.patch_size * processor.merge_size) ** 2}

    def prompt(self, prompt: Prompt) -> Row:
        """The chat prompt up to where the response starts; nothing in it is supervised."""
        inputs = chat.pixels(self.checkpoint, prompt.image) if prompt.image is not None else {}
        num_tokens = sum(int(grid.prod()) for grid in inputs.get("image_grid_thw", ())) // self._merge**2
        return chat.asked(self.checkpoint, prompt, placeholder=IMAGE, image=[self._image_token] * num_tokens, inputs=inputs)

    def served(self, prompt: Prompt) -> tuple[Sequence[int], Image.Image | None]:
        """One placeholder, and the picture as it was drawn: its processor is the same everywhere."""
        ids = chat.asked(self.checkpoint, prompt, placeholder=IMAGE, image=[self._image_token]).ids
        return ids, chat.picture(prompt.image) if prompt.image is not None else None

    def row(self, sample: Sample) -> Row:
        """A prompt followed by its demonstration, labelled for supervision."""
        return chat.answered(self.checkpoint, self.prompt(sample.prompt), sample)

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Rows as one right-padded batch with their 3-D positions.

        Raises ValueError when a row's image tokens and image features differ in number.
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        positions = [self._positions(torch.tensor(row.ids), row.inputs["image_grid_thw"].tolist() if row.inputs else []) for row in rows]
        aligned = {"position_ids": pad_sequence([p.T for p in positions], batch_first=True).permute(2, 0, 1)}
        return chat.padded(self.checkpoint, rows, aligned)

    def _positions(self, ids: Tensor, grids: Sequence[Sequence[int]]) -> Tensor:
        """[3, T] rotary positions: text advances all axes, an image spans time 1, its height and its width."""
        import torch

        images = (ids == self._image_token).nonzero().flatten()
        sizes = [(height // self._merge, width // self._merge) for _, height, width in grids]
        chat.matched(len(images), sum(height * width for height, width in sizes))
        parts, cursor, position = [], 0, 0
        for height, width in sizes:
            start = int(images[images >= cursor][0])
            parts.append(torch.arange(position, position + start - cursor).expand(3, -1))
            position += start - cursor
            plane = torch.stack(torch.meshgrid(torch.arange(1), torch.arange(height), torch.arange(width), indexing="ij"))
            parts.append(plane.flatten(1) + position)
            cursor, position = start + height * width, position + max(height, width)
        parts.append(torch.arange(position, position + len(ids) - cursor).expand(3, -1))
        return torch.cat(parts, dim=1)

    @property
    def _image_token(self) -> int:
        return chat.token(self.checkpoint, IMAGE)

    @property
    def _merge(self) -> int:
        """Patches of one image token, a side."""
        return checkpoint.image_processor(self.checkpoint).merge_size
