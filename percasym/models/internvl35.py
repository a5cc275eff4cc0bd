"""InternVL3.5 in its `-HF` form: how its prompts become tokens, and its pictures one tile each.

Unlike the stock processor, a picture is never cut into tiles: it is resized to the one size that the vision
tower was made for, so every picture costs the same number of tokens, however large it was drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from percasym.models import chat, checkpoint, released
from percasym.models.adapt import Adaptation, Names, adapt
from percasym.models.anatomy.base import Anatomy, configuration
from percasym.models.anatomy.internvl35 import internvl35
from percasym.models.base import Batch, Row
from percasym.spans.codec import Codec
from percasym.types import Prompt, Sample

if TYPE_CHECKING:
    from PIL import Image
    from transformers import PreTrainedModel

SIZES = released.sizes("internvl35")
START, IMAGE, END = "<img>", "<IMG_CONTEXT>", "</img>"


@dataclass(frozen=True, slots=True, kw_only=True)
class InternVL35(Adaptation):
    """The InternVL3.5 family (`model=internvl35`)."""

    parts: ClassVar[Names] = {
        "language": ("model.language_model", "lm_head"),
        "projector": ("model.multi_modal_projector",),
        "vision": ("model.vision_tower",),
    }

    size: str = "tiny"
    """tiny (travels with the package), or 1B, 2B, 4B, 8B, 14B, 38B (the -HF checkpoints) from the hub."""
    path: str | None = None
    """A local Hugging Face directory or a hub id, in place of `size`."""

    def __post_init__(self) -> None:
        Adaptation.__post_init__(self)
        if self.size not in ("tiny", *SIZES):
            raise ValueError(f"model.size must be one of tiny, {', '.join(SIZES)}, got {self.size!r}.")

    @property
    def checkpoint(self) -> str:
        """Directory or hub id the model is loaded from."""
        return checkpoint.chosen("internvl35", self.size, self.path)

    def anatomy(self) -> Anatomy:
        """Every tensor of the model, counted from its configuration alone."""
        return internvl35(*configuration("internvl35", self.checkpoint))

    def codec(self) -> Codec:
        """The tokenizer of the checkpoint under the grammar (loads no weights)."""
        return chat.codec(self.checkpoint)

    def load(self) -> PreTrainedModel:
        """`InternVLForConditionalGeneration` in float32 on the CPU, with its adapters and frozen parts."""
        return adapt(checkpoint.model(self.checkpoint, self.attention), self, self.parts)

    def save(self, model: PreTrainedModel, directory: Path) -> None:
        """Write `model` with the tokenizer, image processor and chat template of this checkpoint."""
        checkpoint.save(model, self.checkpoint, directory)

    def images(self) -> Mapping[str, int]:
        """Every picture is one tile of one size."""
        tile = _tile(self.checkpoint)
        return {"height": tile.height, "width": tile.width, "tokens": tile.num_tokens}

    def prompt(self, prompt: Prompt) -> Row:
        """The chat prompt up to where the response starts; nothing in it is supervised."""
        if prompt.image is None:
            return chat.asked(self.checkpoint, prompt, placeholder=IMAGE)
        tile = _tile(self.checkpoint)
        size = {"height": tile.height, "width": tile.width}
        values = chat.pixels(self.checkpoint, prompt.image, crop_to_patches=False, do_resize=True, size=size)["pixel_values"]
        start, context, end = (chat.token(self.checkpoint, name) for name in (START, IMAGE, END))
        image = (start, *[context] * tile.num_tokens, end)
        return chat.asked(self.checkpoint, prompt, placeholder=IMAGE, image=image, inputs={"pixel_values": values})

    def served(self, prompt: Prompt) -> tuple[Sequence[int], Image.Image | None]:
        """One placeholder, its opening and closing tokens left out, and the picture at the size of one tile, so that it stays one."""
        ids = chat.asked(self.checkpoint, prompt, placeholder=IMAGE, image=[chat.token(self.checkpoint, IMAGE)]).ids
        if prompt.image is None:
            return ids, None
        tile, resample = _tile(self.checkpoint), checkpoint.image_processor(self.checkpoint).resample
        return ids, chat.picture(prompt.image).resize((tile.width, tile.height), resample)

    def row(self, sample: Sample) -> Row:
        """A prompt followed by its demonstration, labelled for supervision."""
        return chat.answered(self.checkpoint, self.prompt(sample.prompt), sample)

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Rows as one right-padded batch; positions are those that the model counts itself.

        Raises ValueError when a row's image tokens and image features differ in number.
        """
        tile, image = _tile(self.checkpoint), chat.token(self.checkpoint, IMAGE)
        for row in rows:
            features = [tile.num_features(*picture.shape[-2:]) for picture in row.inputs.get("pixel_values", ())]
            chat.matched(row.ids.count(image), sum(features))
        return chat.padded(self.checkpoint, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tile:
    """The one size that pictures are resized to, and how it becomes features."""

    height: int
    width: int
    patch: tuple[int, int]
    shuffle: float
    """Pixel shuffle: the grid of features is this much shorter than the grid of patches, each way."""
    num_tokens: int
    """Image tokens of a picture, as the checkpoint says."""

    def num_features(self, height: int, width: int) -> int:
        """Features that the vision tower makes of so many pixels."""
        return int(height // self.patch[0] * self.shuffle) * int(width // self.patch[1] * self.shuffle)


@lru_cache(maxsize=4)
def _tile(path: str) -> _Tile:
    config = checkpoint.config(path)
    if config.model_type != "internvl":
        raise checkpoint.CheckpointError(
            f"{path} is of type {config.model_type}, not internvl. Give model.path the -HF form of the checkpoint (InternVL3_5-8B-HF)."
        )
    height, width = config.vision_config.image_size
    patch = tuple(config.vision_config.patch_size)
    return _Tile(height=height, width=width, patch=patch, shuffle=config.downsample_ratio, num_tokens=config.image_seq_length)
