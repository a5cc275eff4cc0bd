"""Checkpoints that other tools wrote: adapters without a config.json, other families, weights that are no numbers, hub ids."""

from __future__ import annotations

import json
import time
from pathlib import Path
from shutil import copy

import pytest
import torch

from percasym.cli import main as cli
from percasym.models import checkpoint, hub
from percasym.models.internvl35 import InternVL35
from percasym.models.locate import CheckpointError
from percasym.models.qwen3vl import Qwen3VL

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft uses the deprecated name.

BASE = Qwen3VL().checkpoint
OTHER = InternVL35().checkpoint


def adapters(folder: Path, *, tokenizer: bool) -> Path:
    """What peft and ms-swift write (two files), or LLaMA-Factory (tokenizer and image processor, too), with B = 1."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(checkpoint.model(BASE), config)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(weight)
    model.save_pretrained(folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": BASE}))
    (folder / "README.md").unlink(missing_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json") if tokenizer else ():
        copy(Path(BASE) / name, folder)
    assert not (folder / "config.json").exists()
    return folder


@pytest.mark.parametrize("maker", ["peft", "ms-swift", "LLaMA-Factory"])
def test_a_folder_of_adapters_alone_is_a_model_path(maker: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = adapters(tmp_path, tokenizer=maker == "LLaMA-Factory")
    if maker == "ms-swift":  # Beside peft's two files; it also names a regular expression of modules.
        (folder / "additional_config.json").write_text('{"lora_dtype": null, "lorap_lr_ratio": null, "lorap_emb_lr": 1e-06}')
        settings = json.loads((folder / "adapter_config.json").read_text())
        settings["target_modules"] = r"^(model.language_model(?=\.).*\.(q_proj|v_proj))$"
        (folder / "adapter_config.json").write_text(json.dumps(settings))
    family = Qwen3VL(path=str(folder))
    base, loaded = checkpoint.model(BASE).state_dict(), family.load().state_dict()
    saved = load_file(folder / "adapter_model.safetensors")
    layer = "model.language_model.layers.0.self_attn.q_proj"
    # W + (alpha / r) B A = W + 2 * the sum of the rows of A, in each row.
    delta = 2 * saved[f"base_model.model.{layer}.lora_A.weight"].sum(0)
    torch.testing.assert_close(loaded[f"{layer}.weight"], base[f"{layer}.weight"] + delta)
    assert torch.equal(loaded["model.language_model.norm.weight"], base["model.language_model.norm.weight"])
    assert family.codec().encode("<perception>12") == Qwen3VL().codec().encode("<perception>12")
    assert family.anatomy().numel == Qwen3VL().anatomy().numel
    assert family.image_settings() == Qwen3VL().image_settings()


def test_adapters_of_another_family_are_named_by_their_base(tmp_path: Path) -> None:
    folder = adapters(tmp_path, tokenizer=False)
    with pytest.raises(CheckpointError, match=r"is of type qwen3_vl, and model=internvl35 reads internvl. Set model=qwen3vl."):
        InternVL35(path=str(folder)).codec()


@pytest.mark.parametrize("command", ["plan", "audit", "rollouts", "evaluate"])
def test_a_checkpoint_of_another_family_is_one_sentence_from_every_command(
    command: str, capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    named = [OTHER, "model=qwen3vl"] if command == "evaluate" else [f"model.path={OTHER}"]
    assert cli.main([command, "task=sudoku", *named]) == 2
    said = f"{OTHER} is of type internvl, and model=qwen3vl reads qwen3_vl or qwen3_vl_moe. Set model=internvl35.\n"
    assert capsys.readouterr().err == said


def test_a_released_size_of_another_family_and_an_unknown_type_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"OpenGVLab/InternVL3_5-8B-HF is a checkpoint of model=internvl35, not of model=qwen3vl."):
        assert Qwen3VL(path="OpenGVLab/InternVL3_5-8B-HF").checkpoint
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(CheckpointError, match=r"is of type llama, and model=qwen3vl reads qwen3_vl or qwen3_vl_moe. Check model.path."):
        assert Qwen3VL(path=str(tmp_path)).checkpoint
    (tmp_path / "config.json").write_text('{"model_type": "internvl_chat"}')
    with pytest.raises(CheckpointError, match=r"Give model.path the -HF form of the checkpoint"):
        assert InternVL35(path=str(tmp_path)).checkpoint


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_no_number_is_refused_by_audit(value: float, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from safetensors.torch import load_file, save_file

    for file in Path(BASE).iterdir():
        copy(file, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))
    weights[name][3, 5] = value
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert cli.main(["audit", "task=sudoku", f"model.path={tmp_path}", "--samples", "2"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"The checkpoint {tmp_path} has a weight that is no finite number, in model.language_model.layers.1.mlp.up_proj")
    assert said.count("\n") == 1


def test_a_hub_id_without_a_network_is_one_sentence_within_seconds(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.unreachable.cache_clear()
    began = time.perf_counter()
    try:
        assert cli.main(["audit", "task=sudoku", "model.path=nobody/nothing-here", "--samples", "2"]) == 2
    finally:
        hub.unreachable.cache_clear()
    assert time.perf_counter() - began < 15
    said = capsys.readouterr().err
    assert said.startswith("nobody/nothing-here is no directory here, is not in the local cache, and the Hugging Face hub cannot be reach")
    assert said.endswith("Give model.path a directory, or download the checkpoint where there is a network.\n")
