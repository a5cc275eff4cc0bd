"""Files that mean harm: refused in a sentence, and nothing of theirs is called, written or decoded."""

from __future__ import annotations

import base64
import io
import json
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from percasym.runs.checkpoint import DONE, SUMS, write_sums

TINY = [
    "scale=smoke", "engine=torch", "paradigm.steps=2", "paradigm.batch_size=2", "paradigm.save_every=1", "evaluation.num_samples=2",
    "evaluation.max_new_tokens=4", "hydra.run.dir=run",
]  # fmt: skip


class Payload:
    """A pickle of it makes a file named `owned` when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return (Path.touch, (self.folder / "owned",))  # type: ignore[return-value]


@pytest.fixture
def refused(command, tmp_path: Path):
    """`refused("task=sudoku", ...)`: what the command says, once it is one sentence, exit code 2, and nothing was called."""

    def words(*given: str) -> str:
        answer = command(*given)
        assert answer.code == 2, answer.err
        sentence = answer.err.strip().splitlines()[-1]
        assert "Traceback" not in answer.err
        assert not (tmp_path / "owned").exists(), "it was called"
        return sentence

    return words


@pytest.fixture
def interrupted(command, blank: Path, interrupt_at, tmp_path: Path) -> tuple[list[str], Path]:
    """The words of a run, and its directory: stopped in its second step, with a checkpoint after the first."""
    words = [*TINY, f"model.path={blank}"]
    interrupt_at(2)
    assert command(*words).code == 130
    return words, tmp_path / "run"


def test_a_payload_is_one(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path)))
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_model_that_is_a_pickle_is_refused(refused, blank: Path, tmp_path: Path, name: str) -> None:
    hostile = tmp_path / "hostile"
    shutil.copytree(blank, hostile)
    (hostile / "model.safetensors").unlink()
    (hostile / name).write_bytes(pickle.dumps(Payload(tmp_path)))
    said = refused(*TINY, f"model.path={hostile}")
    assert said.startswith(f"{hostile / 'config.json'} asks for " if "safe" in name else f"The checkpoint {hostile} could not be loaded (")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_model.bin"])
def test_adapters_that_are_a_pickle_are_refused(refused, blank: Path, tmp_path: Path, name: str) -> None:
    hostile = tmp_path / "hostile"
    shutil.copytree(blank, hostile, ignore=shutil.ignore_patterns("*.safetensors"))
    config = {"base_model_name_or_path": str(blank), "peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}
    (hostile / "adapter_config.json").write_text(json.dumps(config))
    (hostile / name).write_bytes(pickle.dumps(Payload(tmp_path)))
    said = refused(*TINY, f"model.path={hostile}")
    assert said.startswith(f"{hostile / name} {'has a header of ' if 'safe' in name else 'is a pickle, and adapters are read from '}")


@pytest.mark.parametrize("name", ["engine.pt", "model/model.safetensors"])
def test_a_checkpoint_with_a_pickle_and_the_right_sums_is_refused(refused, interrupted, tmp_path: Path, name: str) -> None:
    words, run = interrupted
    checkpoint = run / "checkpoints" / "step_000001"
    (checkpoint / name).write_bytes(pickle.dumps(Payload(tmp_path)))
    note = (checkpoint / DONE).read_text()
    for ours in (DONE, SUMS):
        (checkpoint / ours).unlink()
    write_sums(checkpoint, pending={DONE: note})
    (checkpoint / DONE).write_text(note)
    sentence = refused(*words)
    assert sentence.startswith("run/checkpoints/step_000001/")
    assert "cannot be read (" in sentence or "the files beside it cannot hold them" in sentence


def test_a_configuration_of_a_run_that_calls_python_is_refused(refused, interrupted, tmp_path: Path) -> None:
    words, run = interrupted
    (run / "config.yaml").write_text(f"seed: !!python/object/apply:os.mknod ['{tmp_path / 'owned'}']\n")
    assert refused(*words) == "run/config.yaml cannot be read as a configuration. Restore it, or clear the run away."


def test_an_experiment_that_calls_python_is_refused(refused, tmp_path: Path) -> None:
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    file = tmp_path / "mine" / "experiment" / "evil.yaml"
    file.write_text(f"# @package _global_\nseed: !!python/object/apply:os.mknod ['{tmp_path / 'owned'}']\n")
    assert "could not determine a constructor for the tag" in refused(f"--config-dir={tmp_path / 'mine'}", "experiment=evil", *TINY)
    file.write_text("# @package _global_\nbalance:\n  _target_: os.system\n  command: touch owned\n")
    message = refused(f"--config-dir={tmp_path / 'mine'}", "experiment=evil", *TINY)
    assert message == "balance._target_=os.system lies outside percasym; add its package to plugins=[...] if you trust it."


def test_a_link_out_of_the_run_directory_is_refused(refused, interrupted, tmp_path: Path) -> None:
    words, run = interrupted
    outside, aside = tmp_path / "outside", tmp_path / "aside"
    outside.mkdir()
    (outside / "mine").write_text("precious")
    for name in ("checkpoints", "samples", "metrics.jsonl", "checkpoints/step_000001"):
        (run / name).rename(aside)
        (run / name).symlink_to(outside)
        for more in ([], ["run.overwrite=true"]):
            message = refused(*words, *more)
            assert message == f"run/{name} is a symbolic link, and a run holds files of its own only. Put what it links to in its place."
        (run / name).unlink()
        aside.rename(run / name)
    assert [path.name for path in outside.iterdir()] == ["mine"]


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kB that asks for gigabytes: its header, and rows that are all zero."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, rows = zlib.compressobj(9), io.BytesIO()
    for _ in range(64):
        rows.write(packer.compress(bytes(width + 1)))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows.getvalue() + packer.flush()) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [10_000, 50_000])
def test_a_picture_that_asks_for_gigabytes_is_refused_with_its_line(refused, blank: Path, tmp_path: Path, side: int) -> None:
    row = {"image": base64.b64encode(bomb(side, side)).decode(), "query": "?", "perception": "1", "reasoning": "so 1", "answer": "1"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    message = refused(*TINY, "task=jsonl", f"task.path={tmp_path / 'rows.jsonl'}", f"model.path={blank}")
    assert message.startswith(f"{tmp_path / 'rows.jsonl'}, line 1: its image has ")
    assert " pixels" in message
