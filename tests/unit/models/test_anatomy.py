"""The tensors derived from a configuration equal those of the real class."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from percasym.models.adapt import Lora, adapt, linear_layers, part_of
from percasym.models.anatomy import AnatomyError, ImageTokens
from percasym.models.checkpoint import config_from_dict
from percasym.models.internvl35 import InternVL35
from percasym.models.locate import packaged, released, released_sizes
from percasym.models.qwen3vl import Qwen3VL, image_tokens

FAMILIES = {"qwen3vl": Qwen3VL, "internvl35": InternVL35}
EVERY = [(name, size) for name in FAMILIES for size in ("tiny", *released_sizes(name))]


def meta_model(name: str, size: str) -> torch.nn.Module:
    """The real class on the meta device."""
    from transformers import AutoModelForImageTextToText

    values = json.loads((Path(packaged(name)) / "config.json").read_text()) if size == "tiny" else released(name, size).config
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config_from_dict(values))


@pytest.mark.parametrize(("name", "size"), EVERY)
def test_every_tensor_has_its_name_part_and_shape(name: str, size: str) -> None:
    family = FAMILIES[name](size=size)
    anatomy, model = family.anatomy(), meta_model(name, size)
    counted = {tensor: (weights.part, weights.shape) for weights in anatomy.weights for tensor in weights.names}
    held = {tensor: (part_of(tensor, family.parts), tuple(parameter.shape)) for tensor, parameter in model.named_parameters()}
    assert counted == held
    assert anatomy.numel == sum(parameter.numel() for parameter in model.parameters())
    linear = {tensor.removesuffix(".weight") for weights in anatomy.weights if weights.kind == "linear" for tensor in weights.names}
    assert linear == set(linear_layers(model, family.parts, family.parts)), "the layers that can carry adapters"


def test_adapters_are_counted_from_the_shapes_of_the_layers(tiny_qwen) -> None:
    from percasym.plan.inputs import count_parameters

    lora = Lora(rank=3, targets=("language", "vision"))
    family = Qwen3VL(lora=lora)
    model = adapt(meta_model("qwen3vl", "tiny"), family, family.parts)
    assert count_parameters(family.anatomy(), family).num_trained == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("side", [16, 64, 96, 200, 300])
def test_a_picture_costs_what_the_processor_makes_of_it(side: int) -> None:
    from percasym.tasks.canvas import Look
    from percasym.tasks.sudoku.task import Sudoku
    from percasym.types import SampleKey

    family, task = Qwen3VL(), Sudoku(look=Look(image_px=max(side, 32)))
    sample = task.sample(SampleKey(task=task.name, split="test", seed=0, index=0))
    inputs = family.prompt(sample.prompt).inputs
    patches = int(inputs["image_grid_thw"].prod())
    assert family.anatomy().image_tokens(max(side, 32), max(side, 32)) == ImageTokens(patches=patches, tokens=patches // 4)


def test_a_picture_out_of_bounds_is_brought_into_them() -> None:
    # 100 x 50 of at least 128 x 128 pixels: scaled by sqrt(16384 / 5000) = 1.81 to 181.0 x 90.5, up to 12 x 6 tokens of 16 pixels.
    assert image_tokens(100, 50, patch=8, merge=2, min_pixels=128 * 128, max_pixels=256 * 256) == ImageTokens(patches=288, tokens=72)
    # 1000 x 500 of at most 256 x 256: scaled by sqrt(65536 / 500000) = 0.362 to 362.0 x 181.0, down to 22 x 11.
    assert image_tokens(1000, 500, patch=8, merge=2, min_pixels=64 * 64, max_pixels=256 * 256) == ImageTokens(patches=968, tokens=242)


def test_a_hub_id_of_a_released_size_is_known_and_another_is_not() -> None:
    assert Qwen3VL(path="Qwen/Qwen3-VL-8B-Instruct").anatomy().numel == 8_767_123_696
    with pytest.raises(AnatomyError, match=r"Nothing is recorded of model\.path=someone/else"):
        Qwen3VL(path="someone/else").anatomy()


def test_counting_loads_no_library() -> None:
    code = "import sys; from percasym.models.qwen3vl import Qwen3VL; Qwen3VL(size='8B').anatomy(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("family", "cls"), [("qwen3vl", Qwen3VL), ("internvl35", InternVL35)])
@pytest.mark.parametrize(
    ("way", "value"),
    [
        (("text_config",), None), (("text_config", "hidden_size"), "x"), (("vision_config", "patch_size"), 0), (("vision_config",), [1]),
        (("text_config", "num_hidden_layers"), 0.5), (("vision_config", "patch_size"), {}),
    ],
)  # fmt: skip
def test_a_configuration_that_describes_no_model_is_one_sentence(tmp_path: Path, family: str, cls: Any, way: tuple, value: object) -> None:
    shutil.copytree(packaged(family), tmp_path / "copy")
    file = tmp_path / "copy" / "config.json"
    values = json.loads(file.read_text())
    inside = values
    for step in way[:-1]:
        inside = inside[step]
    inside[way[-1]] = value
    file.write_text(json.dumps(values))
    of_no_model = rf"The configuration of {tmp_path}/copy describes no model of {family} \([^\n]*\)\. Check model"
    out_of_bounds = rf"{tmp_path}/copy/config\.json sets patch_size to 0, and 1 to 128 are allowed\."
    with pytest.raises(ValueError, match=f"^{out_of_bounds if value == 0 else of_no_model}"):
        cls(path=str(tmp_path / "copy")).anatomy()
