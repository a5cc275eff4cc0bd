"""Qwen3-VL: a vision tower whose patches are merged into tokens, at its end and from some layers on the way."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from percasym.models.anatomy import qwen3
from percasym.models.anatomy.base import Anatomy, Picture, Stack, Weights, linear, norm, vector

ROOT = "model.visual"
RELEASED_PIXELS = {"shortest_edge": 65_536, "longest_edge": 16_777_216}
"""Fewest and most pixels of a picture, in preprocessor_config.json of every released size."""


def qwen3vl(config: Mapping[str, Any], directory: Path | None) -> Anatomy:
    """The model of a config.json; the image settings come from the directory where there is one."""
    text, vision = config["text_config"], config["vision_config"]
    settings = directory / "preprocessor_config.json" if directory else None
    pixels = json.loads(settings.read_text(encoding="utf-8"))["size"] if settings and settings.is_file() else RELEASED_PIXELS
    return Anatomy(
        weights=(*qwen3.decoder(text, tied=qwen3.is_tied(config)), *_tower(vision), *_mergers(vision)),
        language=qwen3.stack(text),
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
        experts_frac=qwen3.experts_frac(text),
        directory=directory,
        picture=partial(
            picture,
            patch=vision["patch_size"],
            merge=vision["spatial_merge_size"],
            fewest=pixels["shortest_edge"],
            most=pixels["longest_edge"],
        ),
    )


def picture(width: int, height: int, *, patch: int, merge: int, fewest: int, most: int) -> Picture:
    """Each side is rounded to whole tokens, after the picture was brought between `fewest` and `most` pixels.

    >>> picture(576, 576, patch=16, merge=2, **{"fewest": 65_536, "most": 16_777_216}).tokens  # 18 x 18
    324
    """
    side = patch * merge
    wide, high = (max(1, round(length / side)) for length in (width, height))
    if wide * high * side**2 > most:
        scale = math.sqrt(width * height / most)
        wide, high = (max(1, math.floor(length / scale / side)) for length in (width, height))
    elif wide * high * side**2 < fewest:
        scale = math.sqrt(fewest / (width * height))
        wide, high = (math.ceil(length * scale / side) for length in (width, height))
    return Picture(patches=wide * high * merge**2, tokens=wide * high)


def _tower(vision: Mapping[str, Any]) -> tuple[Weights, ...]:
    hidden, width, layers = vision["hidden_size"], vision["intermediate_size"], tuple(range(vision["depth"]))
    patch = (vision.get("in_channels", 3), vision["temporal_patch_size"], vision["patch_size"], vision["patch_size"])
    at = ROOT + ".blocks.{}"
    return (
        Weights(name=f"{ROOT}.patch_embed.proj.weight", part="vision", shape=(hidden, *patch), kind="patches"),
        vector(f"{ROOT}.patch_embed.proj.bias", "vision", hidden),
        Weights(name=f"{ROOT}.pos_embed.weight", part="vision", shape=(vision["num_position_embeddings"], hidden), kind="table"),
        *norm(f"{at}.norm1", "vision", hidden, layers, bias=True),
        *norm(f"{at}.norm2", "vision", hidden, layers, bias=True),
        *linear(f"{at}.attn.qkv", "vision", 3 * hidden, hidden, layers, bias=True),
        *linear(f"{at}.attn.proj", "vision", hidden, hidden, layers, bias=True),
        *linear(f"{at}.mlp.linear_fc1", "vision", width, hidden, layers, bias=True),
        *linear(f"{at}.mlp.linear_fc2", "vision", hidden, width, layers, bias=True),
    )


def _mergers(vision: Mapping[str, Any]) -> tuple[Weights, ...]:
    hidden = vision["hidden_size"]
    merged = hidden * vision["spatial_merge_size"] ** 2
    deep = tuple(range(len(vision["deepstack_visual_indexes"])))
    return (
        *norm(f"{ROOT}.merger.norm", "projector", hidden, None, bias=True),
        *_merger(f"{ROOT}.merger", merged, vision["out_hidden_size"], None),
        *norm(ROOT + ".deepstack_merger_list.{}.norm", "projector", merged, deep, bias=True),
        *_merger(ROOT + ".deepstack_merger_list.{}", merged, vision["out_hidden_size"], deep),
    )


def _merger(at: str, merged: int, out: int, layers: tuple[int, ...] | None) -> tuple[Weights, ...]:
    first = linear(f"{at}.linear_fc1", "projector", merged, merged, layers, bias=True)
    return (*first, *linear(f"{at}.linear_fc2", "projector", out, merged, layers, bias=True))
