"""The InternVL3.5 family in its `-HF` form: prompts to tokens, one tile per image, and the parameters of its vision tower.

Unlike the stock processor, an image is never cut into tiles: it is resized to the native resolution of the vision tower, so every
image has the same number of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

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
    from transformers import PreTrainedModel

SIZES = locate.released_sizes("internvl35")
MOST_TILES = 40  # Our choice; the released image processors cut into at most 12.
START, IMAGE, END = "<img>", "<IMG_CONTEXT>", "</img>"
TOWER, PROJECTOR = "model.vision_tower", "model.multi_modal_projector"


@dataclass(frozen=True, slots=True, kw_only=True)
class InternVL35(Adaptation):
    """The InternVL3.5 family (`model=internvl35`)."""

    parts: ClassVar[PartModules] = {
        "language": ("model.language_model", "lm_head"),
        "projector": ("model.multi_modal_projector",),
        "vision": ("model.vision_tower",),
    }

    size: str = "tiny"
    """tiny or tiny-graphs (packaged), or 1B, 2B, 4B, 8B, 14B, 38B (the -HF checkpoints) from the hub."""
    path: str | None = None
    """A local Hugging Face directory or a hub id, in place of `size`."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; null is its main branch."""
    max_tiles: int = 1
    """Most tiles that a picture is cut into, with a thumbnail beside several; 1 resizes every picture to one tile, so that all are equally
    hard to see."""

    def __post_init__(self) -> None:
        Adaptation.__post_init__(self)
        locate.check_revision(self.size, self.path, self.revision)
        if self.size not in (*locate.PACKAGED_SIZES, *SIZES):
            raise ValueError(f"model.size must be one of {', '.join((*locate.PACKAGED_SIZES, *SIZES))}, got {self.size!r}.")
        if not 1 <= self.max_tiles <= MOST_TILES:
            raise ValueError(f"model.max_tiles must lie between 1 and {MOST_TILES}, got {self.max_tiles}.")

    @property
    def checkpoint(self) -> str:
        """Directory or hub id the model is loaded from."""
        return locate.resolve("internvl35", self.size, self.path, self.revision)

    def anatomy(self) -> Anatomy:
        """Every tensor of the model, from its configuration alone."""
        return anatomy_of(partial(anatomy, max_tiles=self.max_tiles), "internvl35", self.checkpoint)

    def codec(self) -> Codec:
        """The grammar with the tokenizer of the checkpoint (loads no weights)."""
        return chat.codec(self.checkpoint)

    def load(self) -> PreTrainedModel:
        """`InternVLForConditionalGeneration` in float32 on the CPU, with its adapters and frozen parts."""
        return adapt(checkpoint.model(self.checkpoint, self.attention), self, self.parts)

    def save(self, model: PreTrainedModel, directory: Path) -> None:
        """Write `model` with the tokenizer, image processor and chat template of this checkpoint."""
        checkpoint.save(model, self.checkpoint, directory)

    def image_settings(self) -> Mapping[str, int]:
        """Every image becomes one tile of fixed size, or up to `max_tiles` and a thumbnail."""
        tile = _tile(self.checkpoint)
        several = {"max_tiles": self.max_tiles} if self.max_tiles > 1 else {}
        return {"height": tile.height, "width": tile.width, "tokens": tile.num_tokens, **several}

    def limits(self) -> InputLimits:
        """A check of collected rows against this checkpoint; a tile takes a picture of any shape."""
        return _limits(self.checkpoint, self.max_tiles)

    def prompt(self, prompt: Prompt) -> Row:
        """The chat prompt up to the start of the response; nothing in it is supervised."""
        if prompt.image is None:
            return chat.prompt_row(self.checkpoint, prompt, placeholder=IMAGE)
        tile = _tile(self.checkpoint)
        size = {"height": tile.height, "width": tile.width}
        cut = {"crop_to_patches": self.max_tiles > 1, "min_patches": 1, "max_patches": self.max_tiles}
        values = chat.pixels(self.checkpoint, prompt.image, do_resize=True, size=size, **cut)["pixel_values"]  # [tiles, 3, H, W]
        start, context, end = (chat.token(self.checkpoint, name) for name in (START, IMAGE, END))
        image = (start, *[context] * (tile.num_tokens * len(values)), end)
        return chat.prompt_row(self.checkpoint, prompt, placeholder=IMAGE, image=image, inputs={"pixel_values": values})

    def vllm_prompt(self, prompt: Prompt) -> tuple[Sequence[int], Image.Image | None]:
        """One placeholder without start and end tokens, and the image resized to one tile, so that vLLM does not split it."""
        ids = chat.prompt_row(self.checkpoint, prompt, placeholder=IMAGE, image=[chat.token(self.checkpoint, IMAGE)]).ids
        if prompt.image is None:
            return ids, None
        if self.max_tiles > 1:
            raise ValueError(f"model.max_tiles={self.max_tiles} needs rollout=native: vLLM cuts pictures into tiles by a rule of its own.")
        tile, resample = _tile(self.checkpoint), checkpoint.image_processor(self.checkpoint).resample
        return ids, chat.decoded(prompt.image).resize((tile.width, tile.height), resample)

    def row(self, sample: Sample) -> Row:
        """A prompt followed by its demonstration, with span labels."""
        return chat.supervised_row(self.checkpoint, self.prompt(sample.prompt), sample)

    def collate(self, rows: Sequence[Row]) -> Batch:
        """Rows as one right-padded batch; the model counts its positions itself.

        Raises ValueError when the numbers of image tokens and image features of a row differ.
        """
        tile, image = _tile(self.checkpoint), chat.token(self.checkpoint, IMAGE)
        for row in rows:
            features = [tile.num_features(*pixels.shape[-2:]) for pixels in row.inputs.get("pixel_values", ())]
            chat.check_image_tokens(row.ids.count(image), sum(features))
        return chat.pad_rows(self.checkpoint, rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tile:
    """The size that images are resized to, and the number of features it gives."""

    height: int
    width: int
    patch: tuple[int, int]
    shuffle: float
    """Pixel shuffle: ratio of the side of the feature grid to the side of the patch grid."""
    num_tokens: int
    """Image tokens of an image, from the checkpoint's configuration."""

    def num_features(self, height: int, width: int) -> int:
        """Features that the vision tower computes for an image of this size."""
        return int(height // self.patch[0] * self.shuffle) * int(width // self.patch[1] * self.shuffle)


@lru_cache(maxsize=4)
def _tile(path: str) -> _Tile:
    config = checkpoint.config(path)
    if config.model_type != "internvl":
        raise CheckpointError(
            f"{path} is of type {config.model_type}, not internvl. Give model.path the -HF form of the checkpoint (InternVL3_5-8B-HF)."
        )
    height, width = config.vision_config.image_size
    patch = tuple(config.vision_config.patch_size)
    return _Tile(height=height, width=width, patch=patch, shuffle=config.downsample_ratio, num_tokens=config.image_seq_length)


def num_tiles(width: int, height: int, *, side: tuple[int, int], max_tiles: int) -> int:
    """Tiles of a picture of `width` x `height` pixels, its thumbnail included; `side` is (width, height) of a tile.

    The grid with the nearest aspect ratio is taken, of equal ones the largest that the picture fills to more than a half. As
    `get_optimal_tiled_canvas` of transformers (GotOcr2ImageProcessor), without importing it.

    >>> num_tiles(896, 448, side=(448, 448), max_tiles=12), num_tiles(448, 448, side=(448, 448), max_tiles=1)
    (3, 1)
    """
    grids = {(columns, rows) for columns in range(1, max_tiles + 1) for rows in range(1, max_tiles // columns + 1)}
    best, difference = (1, 1), math.inf
    for grid in sorted(grids, key=lambda grid: (grid[0] * grid[1], grid)):
        other = abs(width / height - grid[0] / grid[1])
        if other < difference or (other == difference and width * height > 0.5 * side[0] * side[1] * grid[0] * grid[1]):
            best, difference = grid, other
    tiles = best[0] * best[1]
    return tiles + (tiles > 1)


@lru_cache(maxsize=4)
def _limits(path: str, max_tiles: int) -> InputLimits:
    positions = num_positions(path, "internvl35")
    tile = _tile(path)
    return InputLimits(
        path=path,
        placeholder=IMAGE,
        positions=positions,
        max_ratio=None,
        num_image_tokens=lambda width, height: (
            tile.num_tokens * num_tiles(width, height, side=(tile.width, tile.height), max_tiles=max_tiles)
        ),
        control=control_tokens(path),
    )


def anatomy(config: Mapping[str, Any], directory: Path | None, *, max_tiles: int = 1) -> Anatomy:
    """Every tensor of the model of a config.json; `max_tiles` bounds the tiles of a picture."""
    text, vision = config["text_config"], config["vision_config"]
    (tile_height, tile_width), (patch_height, patch_width) = vision["image_size"], vision["patch_size"]
    num_patches = (tile_height // patch_height) * (tile_width // patch_width)

    def image_tokens(width: int, height: int) -> ImageTokens:
        tiles = num_tiles(width, height, side=(tile_width, tile_height), max_tiles=max_tiles)
        return ImageTokens(patches=tiles * (num_patches + 1), tokens=tiles * config["image_seq_length"])  # One more: the class token.

    return Anatomy(
        weights=(*decoder(text, tied=is_tied(config)), *_tower(vision, num_patches), *_projector(config)),
        language=decoder_stack(text),
        vision=Stack(
            layers=vision["num_hidden_layers"],
            hidden=vision["hidden_size"],
            heads=vision["num_attention_heads"],
            kv_heads=vision["num_attention_heads"],
            head_dim=vision["hidden_size"] // vision["num_attention_heads"],
            mlp=vision["intermediate_size"],
            gated=False,
            rms=vision.get("norm_type", "layer_norm") == "rms_norm",
        ),
        vocabulary=text["vocab_size"],
        experts_frac=experts_frac(text),
        directory=directory,
        image_tokens=image_tokens,
    )


def _tower(vision: Mapping[str, Any], num_patches: int) -> tuple[Weights, ...]:
    hidden, width, layers = vision["hidden_size"], vision["intermediate_size"], tuple(range(vision["num_hidden_layers"]))
    bias, norm_bias = vision.get("attention_bias", False), vision.get("norm_type", "layer_norm") == "layer_norm"
    shape = (hidden, vision.get("num_channels", 3), *vision["patch_size"])
    tokens = ["cls_token", *["mask_token"] * vision.get("use_mask_token", False)]
    at, embeddings = TOWER + ".encoder.layer.{}", f"{TOWER}.embeddings"
    weights = [Weights(name=f"{embeddings}.{name}", part="vision", shape=(1, 1, hidden), kind="table") for name in tokens]
    if vision.get("use_absolute_position_embeddings", True):
        positions = (1, num_patches + 1, hidden)
        weights.append(Weights(name=f"{embeddings}.position_embeddings", part="vision", shape=positions, kind="table"))
    weights += [
        Weights(name=f"{embeddings}.patch_embeddings.projection.weight", part="vision", shape=shape, kind="patches"),
        vector(f"{embeddings}.patch_embeddings.projection.bias", "vision", hidden),
        vector(f"{at}.lambda_1", "vision", hidden, layers),
        vector(f"{at}.lambda_2", "vision", hidden, layers),
        *norm(f"{at}.layernorm_before", "vision", hidden, layers, bias=norm_bias),
        *norm(f"{at}.layernorm_after", "vision", hidden, layers, bias=norm_bias),
    ]
    for name in ("q_proj", "k_proj", "v_proj"):
        weights += linear(f"{at}.attention.{name}", "vision", hidden, hidden, layers, bias=bias)
    if vision.get("use_qk_norm", False):
        for name in ("q_norm", "k_norm"):
            weights += norm(f"{at}.attention.{name}", "vision", hidden, layers, bias=False)
    weights += linear(f"{at}.attention.projection_layer", "vision", hidden, hidden, layers, bias=True)
    weights += linear(f"{at}.mlp.fc1", "vision", width, hidden, layers, bias=True)
    weights += linear(f"{at}.mlp.fc2", "vision", hidden, width, layers, bias=True)
    if not vision.get("use_mean_pooling", True):
        weights += norm(f"{TOWER}.layernorm", "vision", hidden, None, bias=True)
    return tuple(weights)


def _projector(config: Mapping[str, Any]) -> tuple[Weights, ...]:
    out = config["text_config"]["hidden_size"]
    shuffled = config["vision_config"]["hidden_size"] * int(1 / config["downsample_ratio"]) ** 2
    return (
        *norm(f"{PROJECTOR}.layer_norm", "projector", shuffled, None, bias=True),
        *linear(f"{PROJECTOR}.linear_1", "projector", out, shuffled, None, bias=True),
        *linear(f"{PROJECTOR}.linear_2", "projector", out, out, None, bias=True),
    )
