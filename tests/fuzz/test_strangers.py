"""Readers of files that somebody else wrote: a value or one ValueError, in bounded time and memory, whatever the bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save

from percasym.config.escaping import HIDDEN, csv_cell, markdown, visible
from percasym.config.files import MAX_DEPTH, depth_exceeds, inside, parsed_json, parsed_yaml, read_bytes
from percasym.models.base import Batch
from percasym.models.untrusted import check_checkpoint, check_pattern
from percasym.models.untrusted_tokenizer import check_components, is_linear
from percasym.runs.identity import RunConflict, delete_run, find, mark_ended
from percasym.tasks.given.picture import Limits, image_source, read_image
from percasym.training.divergence import load_batches, save_batches
from tests.fuzz.conftest import altered, cases, damaged, limited

YAML = [b"a: &a [1, 2]\nb: [*a, *a]\n", b"seed: 0\nparadigm: {steps: 4, lr: 1e-3}\n", b"- a\n- {b: [c, d]}\n", b"? [a]\n: |\n  text\n"]
CONFIG = {
    "model_type": "qwen3_vl",
    "text_config": {"num_hidden_layers": 2, "hidden_size": 8},
    "vision_config": {"depth": 1, "patch_size": 8},
}
ADAPTER = {"base_model_name_or_path": "x", "r": 8, "target_modules": r"a\.\d+\.q|a\.\d+\.k", "rank_pattern": {"q": 4}}
TOKENIZER: dict[str, object] = {
    "added_tokens": [
        {"id": 7, "content": "<x>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    ],
    "truncation": None,
    "padding": None,
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Replace", "pattern": {"String": "a"}, "content": "ab"}]},
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": r"\s?\p{L}+|\s+"}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
        ],
    },
    "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
    "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "model": {
        "type": "BPE",
        "dropout": None,
        "vocab": {chr(256 + n): n for n in range(4)} | {"a": 4, "b": 5, "ab": 6},
        "merges": [["a", "b"]],
    },
}
DOUBLES = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
IDS = torch.arange(6).reshape(2, 3)
DUMP = save({"0.ids": IDS, "0.mask": torch.ones_like(IDS), "0.labels": IDS % 2, "0.inputs.pixel_values": torch.ones(2, 4)})
META = {"id": "0123abcd", "status": "running", "seconds": 1.5}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strangers")


@cases()
@given(damaged(YAML) | st.binary(max_size=60))
@example(b"a0: &a0 [x]\n" + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (n, n, n - 1, n - 1) for n in range(1, 60)))
@example(b"[" * 100_000)
@example(b"{a: " * 50_000)
@example(b"a: " + b"9" * 10_000)
def test_yaml_of_others(data: bytes) -> None:
    with limited():
        try:
            value = parsed_yaml(data.decode("utf-8", "replace"), "f")
        except ValueError:
            value = None
        assert not depth_exceeds(value, MAX_DEPTH)


@cases()
@given(damaged([json.dumps(CONFIG).encode()]) | st.binary(max_size=60))
@example(b"[" * 1000 + b"]" * 1000)
def test_json_of_others(data: bytes) -> None:
    with limited():
        try:
            value = parsed_json(data, "f")
        except ValueError:
            return
        assert not depth_exceeds(value, MAX_DEPTH)


@cases()
@given(config=altered([CONFIG]), adapter=altered([ADAPTER]))
@example(config={"a\n": 10**30}, adapter=ADAPTER)
@example(config=CONFIG, adapter={**ADAPTER, "target_modules": "("})
@example(config=CONFIG, adapter={"k" * 2000: 10**30})
def test_configurations_of_checkpoints(folder: Path, config: object, adapter: object) -> None:
    for name, value in (("config.json", config), ("adapter_config.json", adapter)):
        (folder / name).write_text(json.dumps(value))
    reason = ""
    with limited():
        try:
            check_checkpoint(folder)
        except ValueError as error:
            reason = str(error)
    assert len(reason) < 1000 and "\n" not in reason


@cases()
@given(st.text(alphabet="ab.*+?()|[]{}\\d1,^$", max_size=30))
def test_a_pattern_that_is_allowed_ends(pattern: str) -> None:
    import re

    try:
        check_pattern(pattern, "f")
    except ValueError:
        return
    with limited():
        re.fullmatch(pattern, "ab.1" * 20 + "X")


@cases()
@given(name=st.text(max_size=20) | st.sampled_from(["../x", "/etc/passwd", "/dev/zero", ".", "..", "a/../../b", "\0", "~x", "a" * 5000]))
def test_a_path_of_others_is_inside_or_unread(folder: Path, name: str) -> None:
    with limited():
        try:
            path = folder / name
            if inside(path, folder):
                assert path.resolve().is_relative_to(folder.resolve())
            read_bytes(path, max_bytes=100)
        except (ValueError, OSError):
            return


@cases()
@example(meta={"id": "x", "status": "running", "reason": "\ud800"}, config={})
@given(meta=altered([META]), config=altered([{"seed": 0, "paradigm": {"steps": 4}}]))
def test_a_run_of_others_is_found_or_refused_and_deletes_nothing_outside(folder: Path, meta: object, config: object) -> None:
    run, outside = folder / "run", folder / "outside"
    (run / "wandb" / "run-1-0123abcd").mkdir(parents=True, exist_ok=True)
    outside.mkdir(exist_ok=True)
    (run / "config.yaml").write_text(json.dumps(config))
    (run / "meta.json").write_text(json.dumps(meta))
    with limited():
        mark_ended(run, "interrupted")
        try:
            found = find(run, {"seed": 0, "paradigm": {"steps": 4}})
            if found.meta is not None:
                delete_run(run, found.meta["id"])
        except RunConflict:
            pass
    assert outside.is_dir()


@cases(cost=4)
@given(tokenizer=altered([TOKENIZER]), text=st.text(max_size=200))
@example(tokenizer={**TOKENIZER, "normalizer": {"type": "Sequence", "normalizers": [DOUBLES] * 15}}, text="aaaa")
@example(tokenizer={**TOKENIZER, "normalizer": {**DOUBLES, "pattern": {"String": ""}}}, text="ab é")
@example(tokenizer={**TOKENIZER, "padding": {"strategy": {"Fixed": 10**400}}}, text="a")
def test_a_tokenizer_that_is_accepted_is_built_and_encodes(tokenizer: object, text: str) -> None:
    from tokenizers import Tokenizer

    try:
        with limited():
            check_components(tokenizer, "f")  # type: ignore[arg-type]
    except (ValueError, AttributeError):
        assert not isinstance(tokenizer, dict) or tokenizer != TOKENIZER
        return
    with limited():
        try:
            built = Tokenizer.from_str(json.dumps(tokenizer))
        except Exception:  # The library's own type: a file that it does not read.
            return
        ids = built.encode(text, add_special_tokens=False).ids
    assert len(ids) <= 64 * len(text.encode()) + 64


@cases()
@given(st.text(alphabet="ab.*+?()|[]{}\\d1,^$ps", max_size=30))
def test_a_split_pattern_that_is_linear_splits_in_time(pattern: str) -> None:
    from tokenizers import Regex, pre_tokenizers

    if not is_linear(pattern):
        return
    try:
        split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    except Exception:  # Not all that Python reads is an expression of Oniguruma.
        return
    for text in ("a" * 2_000, "ab" * 1_000, "1,a." * 500):
        with limited():
            split.pre_tokenize_str(text)


@cases()
@given(value=st.text(max_size=30) | st.binary(max_size=30) | altered([{"bytes": None, "path": "images/7.png"}, {"url": "file:///x.png"}]))
@example("file:///dev/zero")
@example("~nouser/x.png")
@example("../../etc/passwd")
@example({"path": "\0"})
@example("QUFB" * 500)
def test_a_picture_of_others_is_read_or_refused(folder: Path, value: object) -> None:
    limits = Limits(max_bytes=1000, max_pixels=100, max_decoded_pixels=100)
    said = ""
    with limited():
        try:
            read_image(image_source(value, folder), limits)
        except ValueError as error:
            said = str(error)
    assert len(said) < 1000


@cases()
@given(damaged([DUMP]) | st.binary(max_size=40))
@example(save({"0.ids": IDS, "0.mask": IDS + 1, "0.labels": IDS.bool()}))
@example(b"")  # The opener allocated what it may read.
def test_batches_of_a_step_are_whole_or_refused(folder: Path, data: bytes) -> None:
    file = folder / "diverged" / "batches_rank0.safetensors"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    said, batches = "", ()
    with limited():
        try:
            batches = load_batches(folder)
        except ValueError as error:
            said = str(error)
    assert "\n" not in said
    assert all(batch.ids.shape == batch.labels.shape for batch in batches)


def test_the_dump_that_is_damaged_is_one_that_is_written(folder: Path) -> None:
    batch = Batch(ids=IDS, mask=torch.ones_like(IDS), labels=IDS % 2, inputs={"pixel_values": torch.ones(2, 4)})
    save_batches(folder, 0, [batch])
    assert (folder / "diverged" / "batches_rank0.safetensors").read_bytes() == DUMP


@cases()
@given(st.text(max_size=40))
@example("=1+1")
@example("\x1b]0;x\x07")
def test_texts_of_others_are_escaped(text: str) -> None:
    assert not HIDDEN.search(visible(text))
    assert not csv_cell(text).startswith(("=", "@", "\t", "\r"))
    escaped = markdown(text)
    assert "\n" not in escaped and "|" not in escaped.replace("\\\\", "").replace("\\|", "")
