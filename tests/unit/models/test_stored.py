"""A trained model is stored in the format of the checkpoint that it comes from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForImageTextToText

from percasym.engine.checkpoint import weight_bytes
from percasym.models import checkpoint
from percasym.models.adapt import Lora
from percasym.models.locate import packaged
from percasym.models.qwen3vl import Qwen3VL
from percasym.models.stored import stored_dtype
from percasym.runs.space import size_of


def formats(directory: Path) -> set[str]:
    """The formats of the tensors of a directory."""
    found = set()
    for file in directory.glob("*.safetensors"):
        with safe_open(file, framework="pt") as tensors:
            found |= {str(tensors.get_slice(name).get_dtype()) for name in tensors.keys()}  # noqa: SIM118, not a mapping
    return found


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged model as Qwen publishes its own: in bfloat16."""
    directory = tmp_path_factory.mktemp("half")
    family = Qwen3VL()
    family.save(family.load(), directory)
    AutoModelForImageTextToText.from_pretrained(packaged("qwen3vl"), dtype=torch.bfloat16).save_pretrained(directory)
    assert formats(directory) == {"BF16"}
    return directory


def test_a_model_from_bfloat16_is_stored_in_bfloat16_and_trains_on_in_float32(half: Path, tmp_path: Path) -> None:
    family = Qwen3VL(path=str(half))
    model = family.load()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1e-4 * torch.randn_like(parameter)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    family.save(model, tmp_path)
    assert formats(tmp_path) == {"BF16"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    assert {part["dtype"] for part in config.values() if isinstance(part, dict) and "dtype" in part} <= {"bfloat16"}
    assert all(torch.equal(before[name], value) and value.dtype == torch.float32 for name, value in model.state_dict().items())
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="auto")
    assert plain.dtype == torch.bfloat16
    assert all(torch.equal(value, before[name].bfloat16()) for name, value in plain.state_dict().items()), (
        "rounded once"
    )
    assert size_of(tmp_path) < 0.7 * size_of(Path(packaged("qwen3vl")))
    assert stored_dtype(model, checkpoint.config(model.name_or_path)).itemsize == 2
    assert sum(file.stat().st_size for file in tmp_path.glob("*.safetensors")) == pytest.approx(weight_bytes(model, 2), rel=0.1)


def test_a_model_from_float32_and_adapters_are_stored_in_float32(half: Path, tmp_path: Path) -> None:
    family = Qwen3VL()
    family.save(family.load(), tmp_path / "whole")
    assert formats(tmp_path / "whole") == {"F32"}
    adapted = Qwen3VL(path=str(half), lora=Lora(rank=2))
    model = adapted.load()
    adapted.save(model, tmp_path / "adapters")
    assert formats(tmp_path / "adapters") == {"F32"}
    assert stored_dtype(model, checkpoint.config(model.name_or_path)) == torch.float32
