"""InternVL3.5: a vision tower of one tile, whose patches are shuffled into a quarter as many tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from percasym.models.anatomy import qwen3
from percasym.models.anatomy.base import Anatomy, Picture, Stack, Weights, linear, norm, vector

TOWER, PROJECTOR = "model.vision_tower", "model.multi_modal_projector"


def internvl35(config: Mapping[str, Any], directory: Path | None) -> Anatomy:
    """The model of a config.json."""
    text, vision = config["text_config"], config["vision_config"]
    (height, width), (patch_height, patch_width) = vision["image_size"], vision["patch_size"]
    num_patches = (height // patch_height) * (width // patch_width)
    tile = Picture(patches=num_patches + 1, tokens=config["image_seq_length"])  # One position more: the class token.
    return Anatomy(
        weights=(*qwen3.decoder(text, tied=qwen3.is_tied(config)), *_tower(vision, num_patches), *_projector(config)),
        language=qwen3.stack(text),
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
        experts_frac=qwen3.experts_frac(text),
        directory=directory,
        picture=lambda width, height: tile,
    )


def _tower(vision: Mapping[str, Any], num_patches: int) -> tuple[Weights, ...]:
    hidden, width, layers = vision["hidden_size"], vision["intermediate_size"], tuple(range(vision["num_hidden_layers"]))
    bias, shifts = vision.get("attention_bias", False), vision.get("norm_type", "layer_norm") == "layer_norm"
    shape = (hidden, vision.get("num_channels", 3), *vision["patch_size"])
    tokens = ["cls_token", *["mask_token"] * vision.get("use_mask_token", False)]
    at, start = TOWER + ".encoder.layer.{}", f"{TOWER}.embeddings"
    weights = [Weights(name=f"{start}.{name}", part="vision", shape=(1, 1, hidden), kind="table") for name in tokens]
    if vision.get("use_absolute_position_embeddings", True):
        places = (1, num_patches + 1, hidden)
        weights.append(Weights(name=f"{start}.position_embeddings", part="vision", shape=places, kind="table"))
    weights += [
        Weights(name=f"{start}.patch_embeddings.projection.weight", part="vision", shape=shape, kind="patches"),
        vector(f"{start}.patch_embeddings.projection.bias", "vision", hidden),
        vector(f"{at}.lambda_1", "vision", hidden, layers),
        vector(f"{at}.lambda_2", "vision", hidden, layers),
        *norm(f"{at}.layernorm_before", "vision", hidden, layers, bias=shifts),
        *norm(f"{at}.layernorm_after", "vision", hidden, layers, bias=shifts),
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
