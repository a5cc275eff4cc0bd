"""The Qwen3-VL family: prompts to tokens and 3-D rotary positions, and the parameters of its vision tower.

Unlike the stock processor, image placeholders are expanded on token ids (no torchvision, no second tokenisation), and the three
rotary position axes are computed once per batch, so a forward needs neither an attention mask nor a loop over rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from percasym.config.files import read_json
from percasym.config.schema import at_least
from percasym.models import chat, checkpoint, locate
from percasym.models.adapt import Adaptation, PartModules, adapt
from percasym.models.anatomy import (
    Anatomy,
    ImageTokens,
    Stack,
    Weights,
    anatomy_of,
    decoder,
    decoder_stack,
    experts_frac,
    is_tied,
    linear,
    norm,
    vector,
)
from percasym.models.base import Batch, Row
from percasym.models.limits import InputLimits, control_tokens, num_positions
from percasym.models.locate import CheckpointError
from percasym.spans.codec import Codec
from percasym.types import Prompt, Sample

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor
    from transformers import PreTrainedModel

SIZES = locate.released_sizes("qwen3vl")
IMAGE = "<|image_pad|>"
VISION = "model.visual"
MAX_RATIO = 200.0
"""Longer over shorter side of a picture beyond which the image processor raises (`smart_resize` of transformers)."""
RELEASED_PIXELS = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
"""Minimum and maximum pixels of an image, from preprocessor_config.json of every released size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Qwen3VL(Adaptation):
    """The Qwen3-VL family (`model=qwen3vl`)."""

    parts: ClassVar[PartModules] = {
        "language": ("model.language_model", "lm_head"),
        "projector": ("model.visual.merger", "model.visual.deepstack_merger_list"),
        "vision": ("model.visual",),
    }

    size: str = "tiny"
    """tiny or tiny-graphs (packaged), or 2B, 4B, 8B, 30B-A3B, 32B (the Instruct checkpoints) from the hub."""
    path: str | None = None
    """A local Hugging Face directory or a hub id, in place of `size`."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; null is its main branch."""
    min_pixels: int | None = None
    """A smaller picture is enlarged to this area; null is the checkpoint's own bound."""
    max_pixels: int | None = None
    """A larger picture is reduced to this area (262144 in usual recipes); null is the checkpoint's own bound."""

    def __post_init__(self) -> None:
        Adaptation.__post_init__(self)
        locate.check_revision(self.size, self.path, self.revision)
        if self.size not in (*locate.PACKAGED_SIZES, *SIZES):
            raise ValueError(f"model.size must be one of {', '.join((*locate.PACKAGED_SIZES, *SIZES))}, got {self.size!r}.")
        at_least("model", 1, **{name: bound for name in ("min_pixels", "max_pixels") if (bound := getattr(self, name)) is not None})
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise ValueError(f"model.min_pixels={self.min_pixels} is above model.max_pixels={self.max_pixels}.")

    @property
    def checkpoint(self) -> str:
        """Directory or hub id the model is loaded from."""
        return locate.resolve("qwen3vl", self.size, self.path, self.revision)

    def anatomy(self) -> Anatomy:
        """Every tensor of the model, from its configuration alone."""
        build = partial(anatomy, min_pixels=self.min_pixels, max_pixels=self.max_pixels)
        return anatomy_of(build, "qwen3vl", self.checkpoint)

    def codec(self) -> Codec:
        """The grammar with the tokenizer of the checkpoint (loads no weights)."""
        return chat.codec(self.checkpoint)

    def load(self) -> PreTrainedModel:
        """`Qwen3VLForConditionalGeneration` in float32 on the CPU, with its adapters and frozen parts."""
        return adapt(checkpoint.model(self.checkpoint, self.attention), self, self.parts)

    def save(self, model: PreTrainedModel, directory: Path) -> None:
        """Write `model` with the tokenizer, image processor and chat template of this checkpoint."""
        checkpoint.save(model, self.checkpoint, directory, images={"size": self._size} if self.min_pixels or self.max_pixels else {})

    def image_settings(self) -> Mapping[str, int]:
        """An image keeps its aspect ratio; its area is clamped between two bounds."""
        processor, size = _processor(self.checkpoint), self._size
        bounds = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
        return {**bounds, "pixels_a_token": (processor.patch_size * processor.merge_size) ** 2}

    def limits(self) -> InputLimits:
        """A check of collected rows against this checkpoint."""
        return _limits(self.checkpoint, self.min_pixels, self.max_pixels)

    def prompt(self, prompt: Prompt) -> Row:
        """The chat prompt up to the start of the response; nothing in it is supervised."""
        inputs = chat.pixels(self.checkpoint, prompt.image, size=self._size) if prompt.image is not None else {}
        num_tokens = sum(int(grid.prod()) for grid in inputs.get("image_grid_thw", ())) // self._merge**2
        return chat.prompt_row(self.checkpoint, prompt, placeholder=IMAGE, image=[self._image_token] * num_tokens, inputs=inputs)

    def vllm_prompt(self, prompt: Prompt) -> tuple[Sequence[int], Image.Image | None]:
        """One placeholder, and the image: vLLM uses the same image processor. Within other bounds the image is resized beforehand."""
        ids = chat.prompt_row(self.checkpoint, prompt, placeholder=IMAGE, image=[self._image_token]).ids
        if prompt.image is None:
            return ids, None
        image = chat.decoded(prompt.image)
        if self.min_pixels or self.max_pixels:
            processor = checkpoint.image_processor(self.checkpoint)
            _, rows, columns = (int(number) for number in chat.pixels(self.checkpoint, prompt.image, size=self._size)["image_grid_thw"][0])
            image = image.resize((columns * processor.patch_size, rows * processor.patch_size), processor.resample)
        return ids, image

    def row(self, sample: Sample) -> Row:
        """A prompt followed by its demonstration, with span labels."""
        return chat.supervised_row(self.checkpoint, self.prompt(sample.prompt), sample)

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Rows as one right-padded batch with their 3-D positions.

        Raises ValueError when the numbers of image tokens and image features of a row differ.
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        positions = [self._positions(torch.tensor(row.ids), row.inputs["image_grid_thw"].tolist() if row.inputs else []) for row in rows]
        aligned = {"position_ids": pad_sequence([p.T for p in positions], batch_first=True).permute(2, 0, 1)}
        return chat.pad_rows(self.checkpoint, rows, aligned)

    def _positions(self, ids: Tensor, grids: Sequence[Sequence[int]]) -> Tensor:
        """[3, T] rotary positions: text advances all axes, an image spans one step of time, its height and its width."""
        import torch

        images = (ids == self._image_token).nonzero().flatten()
        sizes = [(height // self._merge, width // self._merge) for _, height, width in grids]
        chat.check_image_tokens(len(images), sum(height * width for height, width in sizes))
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
    def _size(self) -> dict[str, int]:
        """The bounds on a picture's area as the image processor names them."""
        return bounds(_processor(self.checkpoint).size, self.min_pixels, self.max_pixels)

    @property
    def _merge(self) -> int:
        """Patches per side of one image token."""
        return _processor(self.checkpoint).merge_size


def bounds(size: Mapping[str, int], min_pixels: int | None, max_pixels: int | None) -> dict[str, int]:
    """The bounds of an image processor, with those that are set in their place.

    >>> bounds({"shortest_edge": 65_536, "longest_edge": 16_777_216}, None, 262_144)
    {'shortest_edge': 65536, 'longest_edge': 262144}

    Raises CheckpointError when the one that is set contradicts the checkpoint's other.
    """
    found = {"shortest_edge": min_pixels or size["shortest_edge"], "longest_edge": max_pixels or size["longest_edge"]}
    if found["shortest_edge"] > found["longest_edge"]:
        raise CheckpointError(
            f"model.min_pixels={found['shortest_edge']} is above model.max_pixels={found['longest_edge']} "
            "(null is the checkpoint's own bound). Set both."
        )
    return found


@lru_cache(maxsize=4)
def _processor(path: str) -> Any:
    """The image processor of a checkpoint. Raises CheckpointError where it cuts pictures into other patches than its model takes."""
    processor, config = checkpoint.image_processor(path), checkpoint.config(path)
    locate.require_type(path, config.model_type, "qwen3vl")
    for own, name in (("patch_size", "patch_size"), ("merge_size", "spatial_merge_size"), ("temporal_patch_size", "temporal_patch_size")):
        if (found := getattr(processor, own, None)) != (taken := getattr(config.vision_config, name)):
            said = f"The image processor of {path} has {own}={found}, and its model {name}={taken}"
            raise CheckpointError(f"{said}. Check model.path.")
    edges = [getattr(processor.size, edge, None) for edge in RELEASED_PIXELS]
    if not all(isinstance(edge, int) for edge in edges):
        raise CheckpointError(f"The image processor of {path} has the size {edges}, and two areas are needed. Check model.path.")
    return processor


@lru_cache(maxsize=4)
def _limits(path: str, min_pixels: int | None, max_pixels: int | None) -> InputLimits:
    processor = _processor(path)
    sides = {"patch": processor.patch_size, "merge": processor.merge_size}
    size = bounds(processor.size, min_pixels, max_pixels)
    area = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    return InputLimits(
        path=path,
        placeholder=IMAGE,
        positions=num_positions(path, "qwen3vl"),
        max_ratio=MAX_RATIO,
        num_image_tokens=lambda width, height: image_tokens(width, height, **sides, **area).tokens,
        control=control_tokens(path),
    )


def anatomy(config: Mapping[str, Any], directory: Path | None, *, min_pixels: int | None = None, max_pixels: int | None = None) -> Anatomy:
    """Every tensor of the model of a config.json; bounds on a picture's area that are not set come from `directory` if it is given."""
    text, vision = config["text_config"], config["vision_config"]
    settings = directory / "preprocessor_config.json" if directory else None
    own = read_json(settings).get("size") if settings and settings.is_file() else RELEASED_PIXELS
    if not isinstance(own, Mapping) or not all(isinstance(own.get(name), int) for name in RELEASED_PIXELS):
        raise CheckpointError(f"{settings} has no size with {' and '.join(RELEASED_PIXELS)}. Check model.path.")
    pixels = bounds(own, min_pixels, max_pixels)
    return Anatomy(
        weights=(*decoder(text, tied=is_tied(config)), *_tower(vision), *_mergers(vision)),
        language=decoder_stack(text),
        vision=Stack(
            layers=vision["depth"],
            hidden=vision["hidden_size"],
            heads=vision["num_heads"],
            kv_heads=vision["num_heads"],
            head_dim=vision["hidden_size"] // vision["num_heads"],
            mlp=vision["intermediate_size"],
            gated=False,
            rms=False,
        ),
        vocabulary=text["vocab_size"],
        experts_frac=experts_frac(text),
        directory=directory,
        image_tokens=partial(
            image_tokens,
            patch=vision["patch_size"],
            merge=vision["spatial_merge_size"],
            min_pixels=pixels["shortest_edge"],
            max_pixels=pixels["longest_edge"],
        ),
    )


def image_tokens(width: int, height: int, *, patch: int, merge: int, min_pixels: int, max_pixels: int) -> ImageTokens:
    """Sequence lengths of an image: it is scaled between `min_pixels` and `max_pixels`, and each side is rounded to whole tokens.

    >>> image_tokens(576, 576, patch=16, merge=2, min_pixels=65_536, max_pixels=16_777_216).tokens  # 18 x 18
    324
    """
    side = patch * merge
    columns, rows = (max(1, round(length / side)) for length in (width, height))
    if columns * rows * side**2 > max_pixels:
        scale = math.sqrt(width * height / max_pixels)
        columns, rows = (max(1, math.floor(length / scale / side)) for length in (width, height))
    elif columns * rows * side**2 < min_pixels:
        scale = math.sqrt(min_pixels / (width * height))
        columns, rows = (math.ceil(length * scale / side) for length in (width, height))
    return ImageTokens(patches=columns * rows * merge**2, tokens=columns * rows)


def _tower(vision: Mapping[str, Any]) -> tuple[Weights, ...]:
    hidden, width, layers = vision["hidden_size"], vision["intermediate_size"], tuple(range(vision["depth"]))
    patch = (vision.get("in_channels", 3), vision["temporal_patch_size"], vision["patch_size"], vision["patch_size"])
    at = VISION + ".blocks.{}"
    return (
        Weights(name=f"{VISION}.patch_embed.proj.weight", part="vision", shape=(hidden, *patch), kind="patches"),
        vector(f"{VISION}.patch_embed.proj.bias", "vision", hidden),
        Weights(name=f"{VISION}.pos_embed.weight", part="vision", shape=(vision["num_position_embeddings"], hidden), kind="table"),
        *norm(f"{at}.norm1", "vision", hidden, layers, bias=True),
        *norm(f"{at}.norm2", "vision", hidden, layers, bias=True),
        *linear(f"{at}.attn.qkv", "vision", 3 * hidden, hidden, layers, bias=True),
        *linear(f"{at}.attn.proj", "vision", hidden, hidden, layers, bias=True),
        *linear(f"{at}.mlp.linear_fc1", "vision", width, hidden, layers, bias=True),
        *linear(f"{at}.mlp.linear_fc2", "vision", hidden, width, layers, bias=True),
    )


def _mergers(vision: Mapping[str, Any]) -> tuple[Weights, ...]:
    """The merger after the last layer, and those of the deepstack layers."""
    hidden = vision["hidden_size"]
    merged = hidden * vision["spatial_merge_size"] ** 2
    deep = tuple(range(len(vision["deepstack_visual_indexes"])))
    return (
        *norm(f"{VISION}.merger.norm", "projector", hidden, None, bias=True),
        *_merger(f"{VISION}.merger", merged, vision["out_hidden_size"], None),
        *norm(VISION + ".deepstack_merger_list.{}.norm", "projector", merged, deep, bias=True),
        *_merger(VISION + ".deepstack_merger_list.{}", merged, vision["out_hidden_size"], deep),
    )


def _merger(at: str, merged: int, out: int, layers: tuple[int, ...] | None) -> tuple[Weights, ...]:
    first = linear(f"{at}.linear_fc1", "projector", merged, merged, layers, bias=True)
    return (*first, *linear(f"{at}.linear_fc2", "projector", out, merged, layers, bias=True))
