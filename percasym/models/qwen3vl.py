"""Qwen3-VL: how its prompts become tokens and positions.

Unlike the stock processor, image placeholders are expanded on token ids (no torchvision, no text round
trip) and the three rotary position axes are computed once per batch, so a forward needs neither an
attention mask nor a loop over rows.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from percasym.models import checkpoint
from percasym.models.base import Batch, Row
from percasym.spans.codec import Codec
from percasym.types import UNSUPERVISED, Prompt, Sample

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

HUB = {size: f"Qwen/Qwen3-VL-{size}-Instruct" for size in ("2B", "4B", "8B", "32B")}
IMAGE = "<|image_pad|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3VL:
    """The Qwen3-VL family (`model=qwen3vl`)."""

    size: str = "tiny"
    """tiny (travels with the package), or 2B, 4B, 8B, 32B from the hub."""
    path: str | None = None
    """A local Hugging Face directory or a hub id, in place of `size`."""

    def __post_init__(self) -> None:
        if self.size != "tiny" and self.size not in HUB:
            raise ValueError(f"model.size must be one of tiny, {', '.join(HUB)}, got {self.size!r}.")

    @property
    def checkpoint(self) -> str:
        """Directory or hub id the model is loaded from."""
        return self.path or (checkpoint.packaged("qwen3vl") if self.size == "tiny" else HUB[self.size])

    def codec(self) -> Codec:
        """The tokenizer of the checkpoint under the grammar (loads no weights)."""
        return _codec(self.checkpoint)

    def load(self) -> PreTrainedModel:
        """`Qwen3VLForConditionalGeneration` in float32 on the CPU."""
        return checkpoint.model(self.checkpoint)

    def save(self, model: PreTrainedModel, directory: Path) -> None:
        """Write `model` with the tokenizer, image processor and chat template of this checkpoint."""
        checkpoint.save(model, self.checkpoint, directory)

    def prompt(self, prompt: Prompt) -> Row:
        """The chat prompt up to where the response starts; nothing in it is supervised."""
        ids = _chat(self.checkpoint, prompt.question, prompt.image is not None)
        inputs: Mapping[str, Tensor] = {}
        if prompt.image is not None:
            inputs = _pixels(self.checkpoint, prompt.image)
            size = int(inputs["image_grid_thw"].prod()) // checkpoint.image_processor(self.checkpoint).merge_size ** 2
            at = ids.index(self._image_token)
            ids = (*ids[:at], *[self._image_token] * size, *ids[at + 1 :])
        return Row(ids=ids, labels=(UNSUPERVISED,) * len(ids), inputs=inputs)

    def row(self, sample: Sample) -> Row:
        """A prompt followed by its demonstration, labelled for supervision."""
        asked = self.prompt(sample.prompt)
        ids, labels = self.codec().encode_demonstration(sample.demonstration)
        return replace(asked, ids=(*asked.ids, *ids), labels=(*asked.labels, *labels))

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Rows as one right-padded batch with their 3-D positions.

        Raises ValueError when a row's image tokens and image features differ in number.
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        ids = [torch.tensor(row.ids) for row in rows]
        grids = [row.inputs["image_grid_thw"].tolist() if row.inputs else [] for row in rows]
        merge = checkpoint.image_processor(self.checkpoint).merge_size
        positions = [self._positions(row, grid, merge) for row, grid in zip(ids, grids, strict=True)]
        seen = [row.inputs for row in rows if row.inputs]
        return Batch(
            ids=pad_sequence(ids, batch_first=True, padding_value=self.codec().end),
            mask=pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            labels=pad_sequence([torch.tensor(row.labels) for row in rows], batch_first=True, padding_value=UNSUPERVISED),
            inputs={name: torch.cat([inputs[name] for inputs in seen]) for name in ("pixel_values", "image_grid_thw")} if seen else {},
            aligned={"position_ids": pad_sequence([p.T for p in positions], batch_first=True).permute(2, 0, 1)},
        )

    def _positions(self, ids: Tensor, grids: Sequence[Sequence[int]], merge: int) -> Tensor:
        """[3, T] rotary positions: text advances all axes, an image spans time 1, its height and its width."""
        import torch

        images = (ids == self._image_token).nonzero().flatten()
        sizes = [(height // merge, width // merge) for _, height, width in grids]
        if len(images) != sum(height * width for height, width in sizes):
            raise ValueError(f"A row has {len(images)} image tokens but {sum(h * w for h, w in sizes)} image features.")
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
        return checkpoint.tokenizer(self.checkpoint).convert_tokens_to_ids(IMAGE)


@lru_cache(maxsize=4)
def _codec(path: str) -> Codec:
    return Codec(tokenizer=checkpoint.tokenizer(path))


@lru_cache(maxsize=1024)
def _chat(path: str, question: str, has_image: bool) -> tuple[int, ...]:
    """Ids of the chat prompt with one image placeholder."""
    content = [{"type": "image"}] * has_image + [{"type": "text", "text": question}]
    tokenizer = checkpoint.tokenizer(path)
    text = tokenizer.apply_chat_template([{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True)
    return tuple(tokenizer.encode(text, add_special_tokens=False))


def _pixels(path: str, image: bytes) -> dict[str, Tensor]:
    from PIL import Image

    picture = Image.open(io.BytesIO(image)).convert("RGB")
    return dict(checkpoint.image_processor(path)(images=[picture], return_tensors="pt"))
