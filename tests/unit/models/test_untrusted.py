"""Checkpoints that somebody else wrote: refused in a sentence before anything is built, and templates end in time."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from percasym.models import checkpoint, locate, template
from percasym.models.locate import CheckpointError, packaged
from percasym.models.template import TemplateError, known_templates, render
from percasym.models.untrusted import check_bases, check_checkpoint, check_numbers, check_pattern

HUGE = "9" * 5000
"""Written as a number, which Python does not convert."""
LOOP = "{% for i in range(99999) %}"
MESSAGES = [{"role": "user", "content": [{"type": "text", "text": "Solve."}]}]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the packaged tiny checkpoint."""
    shutil.copytree(packaged("qwen3vl"), tmp_path / "copy")
    return tmp_path / "copy"


def change(file: Path, *way: str, to: object) -> None:
    values = json.loads(file.read_text()) if file.exists() else {}
    inside = values
    for step in way[:-1]:
        inside = inside.setdefault(step, {})
    inside[way[-1]] = to
    file.write_text(json.dumps(values))


def test_every_released_configuration_and_every_packaged_checkpoint_is_inside_the_bounds() -> None:
    for family in ("qwen3vl", "internvl35"):
        for size in locate.released_sizes(family):
            check_numbers(locate.released(family, size).config, size)
        check_checkpoint(Path(packaged(family)))


@pytest.mark.parametrize(
    ("name", "way", "value", "reason"),
    [
        ("config.json", ("text_config", "num_hidden_layers"), 10**7, "sets num_hidden_layers to 10,000,000, and 0 to 1,024 are allowed"),
        ("config.json", ("text_config", "num_hidden_layers"), 1000, "weights or more, and the files beside it cannot hold them"),
        ("config.json", ("text_config", "vocab_size"), 2**24, "weights or more, and the files beside it cannot hold them"),
        ("config.json", ("vision_config", "depth"), -1, "sets depth to -1"),
        ("config.json", ("vision_config", "spatial_merge_size"), 16, "weights or more, and the files beside it cannot hold them"),
        ("config.json", ("vision_config", "patch_size"), 128, "weights or more, and the files beside it cannot hold them"),
        ("config.json", ("vision_config", "patch_size"), 0, "sets patch_size to 0, and 1 to 128 are allowed"),
        ("config.json", ("vision_feature_layer",), 99, "takes features of vision layer 99, and there are 2"),
        ("config.json", ("vision_config", "num_heads"), 5, "has 5 heads for a width of 96 in vision_config, which they do not divide"),
        ("config.json", ("text_config", "rope_parameters", "mrope_section"), [], "has the rope sections [], and three that sum to 16"),
        ("config.json", ("text_config", "rope_parameters", "mrope_section"), [100] * 3, "has the rope sections [100, 100, 100], and three"),
        ("config.json", ("vision_config", "in_channels"), 10**6, "sets in_channels to 1,000,000, and 0 to 64 are allowed"),
        ("config.json", ("vision_config", "deepstack_visual_indexes"), [0] * 1000, "weights or more, and the files beside it cannot hold"),
        ("config.json", ("vision_config", "deepstack_visual_indexes"), [0] * 20_000, "has 20,000 items under deepstack_visual_indexes"),
        ("config.json", ("downsample_ratio",), 1e-6, "weights or more, and the files beside it cannot hold them"),
        ("config.json", ("quantization_config",), {"quant_method": "awq"}, "sets quantization_config, and percasym reads weights that are"),
        ("config.json", ("return_dict",), False, "sets return_dict to False, and outputs are read by their names"),
        ("config.json", ("transformers_weights",), "../x.safetensors", "sets transformers_weights, and weights are *.safetensors under"),
        ("config.json", ("text_config", "_attn_implementation"), "evil/x", "sets _attn_implementation to 'evil/x', code that would"),
        ("config.json", ("x",), HUGE, "is not JSON"),
        ("config.json", ("x",), 10**30, "sets x to a number of 31 digits, a number beyond reason"),
        ("preprocessor_config.json", ("size", "shortest_edge"), 10**12, "sets shortest_edge to 1,000,000,000,000"),
        ("preprocessor_config.json", ("size", "shortest_edge"), 2**24, "sets shortest_edge to 16,777,216, and 0 to 4,194,304 are allowed"),
        ("preprocessor_config.json", ("size", "height"), 2**14, "sets height to 16,384, and 0 to 4,096 are allowed"),
        ("preprocessor_config.json", ("patch_size",), 1024, "sets patch_size to 1,024, and 1 to 128 are allowed"),
        ("preprocessor_config.json", ("image_processor_type",), "OwlViTImageProcessor", "names the image processor 'OwlViTImageProcessor'"),
        ("tokenizer_config.json", ("chat_template",), "x" * 2**20, "has 1,048,576 characters under chat_template"),
        ("model.safetensors.index.json", ("weight_map", "a"), "../../secret.safetensors", "names the weights '../../secret.safetensors'"),
        ("model.safetensors.index.json", ("weight_map", "a"), "/etc/passwd", "names the weights '/etc/passwd'"),
        ("model.safetensors.index.json", ("weight_map", "a"), "gone.safetensors", "gone.safetensors is no regular file"),
    ],
)  # fmt: skip
def test_numbers_and_names_beyond_reason_are_refused(copy: Path, name: str, way: tuple[str, ...], value: object, reason: str) -> None:
    if value == HUGE:
        (copy / name).write_text('{"x": ' + HUGE + "}")
    else:
        change(copy / name, *way, to=value)
    with pytest.raises(ValueError, match=re.escape(reason)):
        check_checkpoint(copy)
    with pytest.raises(CheckpointError, match=re.escape(reason)) as refused:
        checkpoint.config(str(copy))
    said = str(refused.value)
    assert said.endswith(" Check model.path.") and said.count(str(copy)) == 1 and len(said) < 600


PIPES = ["preprocessor_config.json", "model.safetensors", "additional_chat_templates/a.jinja", "adapter_model.bin"]


@pytest.mark.parametrize("name", PIPES)
def test_a_pipe_among_the_files_hangs_nothing(copy: Path, name: str) -> None:
    (copy / name).unlink(missing_ok=True)
    (copy / name).parent.mkdir(exist_ok=True)
    os.mkfifo(copy / name)
    with pytest.raises(CheckpointError, match=r"is a pipe"):
        checkpoint.model(str(copy))


def test_a_pipe_in_place_of_weights_hangs_no_fingerprint(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    os.mkfifo(copy / "model.safetensors")
    with pytest.raises(ValueError, match="is a pipe, not a regular file"):
        locate.fingerprint(str(copy))


def test_templates_without_end_are_refused(copy: Path) -> None:
    (copy / "chat_template.jinja").write_text("x" * 2**20)
    with pytest.raises(CheckpointError, match="has 1,048,576 bytes, and at most 262,144 are read"):
        checkpoint.config(str(copy))
    (copy / "chat_template.jinja").unlink()
    (copy / "additional_chat_templates").mkdir()
    for number in range(100):
        (copy / "additional_chat_templates" / f"{number}.jinja").touch()
    with pytest.raises(CheckpointError, match="holds 100 templates, and at most 32 are read"):
        checkpoint.config(str(copy))


def test_patterns_that_backtrack_and_packages_of_peft_are_refused(copy: Path) -> None:
    for pattern in ("(a+)+$", "(a|aa)+$", "(.*a){30}", ".*.*.*x", r"(a*)\1", "(", "([a-z]+\\.?)+x", "((a{0,99}){0,99})x"):
        with pytest.raises(ValueError, match="pattern of modules"):
            check_pattern(pattern, "f")
    for pattern in ("q_proj", r".*\.(q|v)_proj", r"a\.\d+\.k|a\.\d+\.q", "all-linear", r"^(?:.*\.)?mlp\.(up|down)$"):
        check_pattern(pattern, "f")
    for key, value in (
        ("megatron_config", {"a": 1}), ("target_modules", "(a+)+$"), ("rank_pattern", {"(a+)+$": 1}), ("peft_type", "PROMPT_TUNING"),
        ("layer_replication", [[0, 10**6]]), ("init_lora_weights", "loftq"), ("init_lora_weights", "pissa_niter_99999"),
    ):  # fmt: skip
        (copy / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "x", "target_modules": ["q_proj"], key: value}))
        with pytest.raises(ValueError, match=r"megatron_config|pattern of modules|of type 'PROMPT|sets layer_replication|sets init_lora"):
            check_checkpoint(copy)


def test_adapters_of_a_rank_that_their_file_does_not_hold_are_refused(copy: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"base_model.model.a.lora_A.weight": torch.ones(2, 8)}, copy / "adapter_model.safetensors")
    settings = {"base_model_name_or_path": "x", "target_modules": ["q_proj"]}
    cases = (({"r": 2}, None), ({"r": 60_000}, "60000"), ({"r": 2, "rank_pattern": {"q": 2**30}}, "1073741824"), ({"r": "x"}, "'x'"))
    for more, wrong in cases:
        (copy / "adapter_config.json").write_text(json.dumps(settings | more))
        if wrong is None:
            check_checkpoint(copy)
            continue
        with pytest.raises(ValueError, match=f"asks for adapters of rank {wrong}, and the file has 2"):
            check_checkpoint(copy)
    (copy / "adapter_model.safetensors").write_bytes(b"\xff" * 8)
    with pytest.raises(ValueError, match=r"has a header of 18,446,744,073,709,551,615 bytes|a header of a number of 20 digits bytes"):
        check_checkpoint(copy)


def test_a_pickle_of_adapters_whose_rank_nobody_can_tell_is_not_loaded(tmp_path: Path) -> None:
    import torch

    settings = {"base_model_name_or_path": packaged("qwen3vl"), "peft_type": "LORA", "r": 60_000, "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    torch.save({}, tmp_path / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=rf"^{tmp_path}/adapter_model.bin is a pickle, and adapters are read from adapter_model.saf"):
        checkpoint.model(str(tmp_path))


def test_a_tokenizer_with_tokens_beyond_the_embeddings_is_refused(copy: Path) -> None:
    from percasym.models import chat

    change(copy / "tokenizer_config.json", "extra_special_tokens", to=["<one more>"])
    with pytest.raises(CheckpointError, match=r"has a token 874, and its model 874 embeddings"):
        chat.codec(str(copy))
    change(copy / "tokenizer_config.json", "extra_special_tokens", to=[])
    change(copy / "tokenizer_config.json", "eos_token", to=None)
    with pytest.raises(CheckpointError, match=r"has no end of sequence"):
        chat.codec(str(copy) + "/")


def test_a_template_without_pictures_and_an_image_token_of_others_are_refused(copy: Path) -> None:
    from percasym.models.qwen3vl import Qwen3VL
    from percasym.types import Prompt, SampleKey

    prompt = Prompt(key=SampleKey(task="", split="", seed=0, index=0), image=picture(), question="?")
    template = (copy / "chat_template.jinja").read_text()
    (copy / "chat_template.jinja").write_text("{% for m in messages %}hi{% endfor %}")
    with pytest.raises(CheckpointError, match=r"The chat template of .* leaves out pictures: it writes no <\|image_pad\|>"):
        Qwen3VL(path=str(copy)).prompt(prompt)
    (copy / "chat_template.jinja").write_text("{{ '\\ud800' }}")
    with pytest.raises(CheckpointError, match=str(copy)):
        Qwen3VL(path=f"{copy}/").prompt(prompt)
    (copy / "chat_template.jinja").write_text(template)
    change(copy / "config.json", "image_token_id", to=5)
    with pytest.raises(CheckpointError, match=r"has the image token 5, and its tokenizer has 12"):
        Qwen3VL(path=f"{copy}/.").prompt(prompt)


@pytest.mark.parametrize(("name", "value", "reason"), [
    ("patch_size", 7, "has patch_size=7, and its model patch_size=8"), ("temporal_patch_size", 1, "has temporal_patch_size=1, and its"),
    ("size", 5, "has the size \\[.*\\], and two areas are needed"),
])  # fmt: skip
def test_an_image_processor_of_another_model_is_refused(copy: Path, name: str, value: object, reason: str) -> None:
    from percasym.models.qwen3vl import Qwen3VL

    change(copy / "preprocessor_config.json", name, to=value)
    with pytest.raises(CheckpointError, match=reason):
        Qwen3VL(path=str(copy)).image_settings()


def test_adapters_without_weights_are_refused_without_a_network(tmp_path: Path) -> None:
    settings = {"base_model_name_or_path": packaged("qwen3vl"), "peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=r"could not be loaded \(it has no adapter_model.safetensors\)"):
        checkpoint.model(str(tmp_path))


def picture() -> bytes:
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (64, 64)).save(out, "PNG")
    return out.getvalue()


def test_adapters_on_themselves_are_refused(tmp_path: Path) -> None:
    for name, base in (("a", "b"), ("b", "a"), ("itself", "itself")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path / base)}))
    for name in ("a", "itself"):
        with pytest.raises(ValueError, match="name themselves as their base"):
            check_bases(tmp_path / name)
        with pytest.raises(CheckpointError, match="name themselves as their base"):
            checkpoint.model(str(tmp_path / name))


def test_the_templates_of_this_package_are_known_and_render_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template, "_child", None)
    for family in ("qwen3vl", "internvl35"):
        assert "Solve." in render(locate.chat_template(family), MESSAGES, add_generation_prompt=True)
    assert known_templates()


def test_another_template_renders_in_a_child_as_it_would_here() -> None:
    text = "{% for m in messages %}<{{ m.role }}>{{ m.content[0].text }}{{ eos_token }}{% endfor %}"
    assert render(text, MESSAGES, eos_token="</s>") == template.rendered(text, MESSAGES, {"eos_token": "</s>"}) == "<user>Solve.</s>"


def test_the_child_answers_each_line_of_its_input_until_it_ends() -> None:
    template = "{{ messages[0].role }}: {{ messages[0].content * options_of_ours }}"
    asked = [{"messages": [{"role": "user", "content": "Hi"}], "options": {"options_of_ours": number}} for number in (2, None, 2**21)]
    lines = "".join(json.dumps(line) + "\n" for line in ({"template": template}, *asked))
    command = [sys.executable, "-m", "percasym.models.template"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True, timeout=300)
    ready, short, wrong, long = map(json.loads, done.stdout.splitlines())
    assert (ready, short) == ({}, {"text": "user: HiHi"})
    assert wrong["error"].startswith("TypeError: can't multiply sequence")
    assert long == {"error": "its text is too long"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LOOP * 3 + "{% endfor %}" * 3, "takes longer"),
        ("{{ 'a' * 10**11 }}", "Memory|out of memory"),
        ("{% for i in range(9999) %}{{ 'a' * 99999 }}{% endfor %}", "too long|Memory|out of memory"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "SecurityError|UndefinedError"),
        ("{{ raise_exception('no') }}", "no"),
        ("{% if %}", "TemplateSyntaxError"),
    ],
)  # fmt: skip
def test_a_template_that_loops_fills_the_memory_or_breaks_out_is_refused(monkeypatch: pytest.MonkeyPatch, text: str, reason: str) -> None:
    monkeypatch.setattr(template, "SECONDS", 3.0)
    began = time.monotonic()
    with pytest.raises(TemplateError, match=reason):
        render(text, MESSAGES)
    assert time.monotonic() - began < 200
    with pytest.raises(TemplateError):
        render(text, MESSAGES)


def test_files_of_another_form_are_refused_and_those_beside_an_index_are_not(copy: Path) -> None:
    index = copy / "model.safetensors.index.json"
    for file, values, reason in ((copy / "generation_config.json", [], "is no JSON object."), (index, {}, "has no weight_map.")):
        file.write_text(json.dumps(values))
        with pytest.raises(ValueError, match=re.escape(f"{file} {reason}")):
            check_checkpoint(copy)
        file.write_text("{}")
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors", "b": "model.safetensors"}}))
    check_checkpoint(copy)
    index.write_text(json.dumps({"weight_map": {"a": "later.safetensors"}}))
    check_checkpoint(copy, weights=False)  # They are still to be downloaded.


def test_patterns_with_a_look_at_their_surroundings_are_measured_too() -> None:
    check_pattern(r"(?=.*q_proj)layers\.\d+", "f")
    with pytest.raises(ValueError, match="repeats inside a repeat, or too often"):
        check_pattern(r"(?!(a+)+b)c", "f")
