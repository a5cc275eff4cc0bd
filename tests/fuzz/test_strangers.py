"""Readers of files that somebody else wrote: a value or one ValueError, in bounded time and memory, whatever the bytes."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from percasym.config.escaping import HIDDEN, csv_cell, markdown, visible
from percasym.config.files import MAX_DEPTH, depth_exceeds, inside, parsed_json, parsed_yaml, read_bytes
from percasym.models.untrusted import check_checkpoint, check_pattern
from percasym.runs.identity import RunConflict, delete_run, find, mark_ended
from tests.fuzz.conftest import altered, cases, damaged

SECONDS, MEMORY_BYTES = 5.0, 2**28
"""Of one case; a busy machine needs a tenth of a second."""
YAML = [b"a: &a [1, 2]\nb: [*a, *a]\n", b"seed: 0\nparadigm: {steps: 4, lr: 1e-3}\n", b"- a\n- {b: [c, d]}\n", b"? [a]\n: |\n  text\n"]
CONFIG = {
    "model_type": "qwen3_vl",
    "text_config": {"num_hidden_layers": 2, "hidden_size": 8},
    "vision_config": {"depth": 1, "patch_size": 8},
}
ADAPTER = {"base_model_name_or_path": "x", "r": 8, "target_modules": r"a\.\d+\.q|a\.\d+\.k", "rank_pattern": {"q": 4}}
META = {"id": "0123abcd", "status": "running", "seconds": 1.5}


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """No target grows this process by more than MEMORY_BYTES."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert grown < MEMORY_BYTES, f"it took {grown:,} bytes"


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
    began = time.monotonic()
    try:
        value = parsed_yaml(data.decode("utf-8", "replace"), "f")
    except ValueError:
        value = None
    assert not depth_exceeds(value, MAX_DEPTH)
    assert time.monotonic() - began < SECONDS


@cases()
@given(damaged([json.dumps(CONFIG).encode()]) | st.binary(max_size=60))
@example(b"[" * 1000 + b"]" * 1000)
def test_json_of_others(data: bytes) -> None:
    try:
        value = parsed_json(data, "f")
    except ValueError:
        return
    assert not depth_exceeds(value, MAX_DEPTH)


@cases()
@given(config=altered([CONFIG]), adapter=altered([ADAPTER]))
def test_configurations_of_checkpoints(folder: Path, config: object, adapter: object) -> None:
    for name, value in (("config.json", config), ("adapter_config.json", adapter)):
        (folder / name).write_text(json.dumps(value))
    began = time.monotonic()
    reason = ""
    try:
        check_checkpoint(folder)
    except ValueError as error:
        reason = str(error)
    assert len(reason) < 1000
    assert time.monotonic() - began < SECONDS


@cases()
@given(st.text(alphabet="ab.*+?()|[]{}\\d1,^$", max_size=30))
def test_a_pattern_that_is_allowed_ends(pattern: str) -> None:
    import re

    try:
        check_pattern(pattern, "f")
    except ValueError:
        return
    began = time.monotonic()
    re.fullmatch(pattern, "ab.1" * 20 + "X")
    assert time.monotonic() - began < SECONDS


@cases()
@given(name=st.text(max_size=20) | st.sampled_from(["../x", "/etc/passwd", "/dev/zero", ".", "..", "a/../../b", "\0", "~x", "a" * 5000]))
def test_a_path_of_others_is_inside_or_unread(folder: Path, name: str) -> None:
    try:
        path = folder / name
        if inside(path, folder):
            assert path.resolve().is_relative_to(folder.resolve())
        read_bytes(path, max_bytes=100)
    except (ValueError, OSError):
        return


@cases()
@given(meta=altered([META]), config=altered([{"seed": 0, "paradigm": {"steps": 4}}]))
def test_a_run_of_others_is_found_or_refused_and_deletes_nothing_outside(folder: Path, meta: object, config: object) -> None:
    run, outside = folder / "run", folder / "outside"
    (run / "wandb" / "run-1-0123abcd").mkdir(parents=True, exist_ok=True)
    outside.mkdir(exist_ok=True)
    (run / "config.yaml").write_text(json.dumps(config))
    (run / "meta.json").write_text(json.dumps(meta))
    mark_ended(run, "interrupted")
    try:
        found = find(run, {"seed": 0, "paradigm": {"steps": 4}})
        if found.meta is not None:
            delete_run(run, found.meta["id"])
    except RunConflict:
        pass
    assert outside.is_dir()


@cases()
@given(st.text(max_size=40))
@example("=1+1")
@example("\x1b]0;x\x07")
def test_texts_of_others_are_escaped(text: str) -> None:
    assert not HIDDEN.search(visible(text))
    assert not csv_cell(text).startswith(("=", "@", "\t", "\r"))
    escaped = markdown(text)
    assert "\n" not in escaped and "|" not in escaped.replace("\\\\", "").replace("\\|", "")
