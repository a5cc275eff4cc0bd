"""Checkpoints that a disk, a copy or a stranger changed: never read as if nothing had happened, and refused in a sentence."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from percasym.config.schema import ConfigError
from percasym.runs.checkpoint import DONE, SUMS, latest_checkpoint, write_checkpoint
from tests.fuzz.conftest import cases, damaged

FILES = ("model/model.safetensors", "model/config.json", "engine.pt", "run.json", SUMS, DONE)


@pytest.fixture(scope="session")
def root() -> Iterator[Path]:
    """Two checkpoints with real weights, optimizer state and notes."""
    import torch
    from safetensors.torch import save_file

    def save(directory: Path) -> None:
        (directory / "model").mkdir()
        save_file({"a": torch.ones(3, 2), "b": torch.zeros(4)}, directory / "model" / "model.safetensors")
        (directory / "model" / "config.json").write_text('{"model_type": "qwen3_vl"}')
        state = {"num_ranks": 1, "random": torch.get_rng_state()[:64], "optimizer": {"state": {0: {"exp_avg": torch.ones(5)}}}}
        torch.save(state, directory / "engine.pt")
        (directory / "run.json").write_text('{"weight": 0.5}')

    with tempfile.TemporaryDirectory() as place:
        for step in (1, 2):
            write_checkpoint(Path(place), step, save, note='{"id": "x"}')
        yield Path(place)


@contextmanager
def changed(file: Path, data: bytes) -> Iterator[bytes]:
    """The file with other content, for as long as this lasts."""
    whole = file.read_bytes()
    file.write_bytes(data)
    try:
        yield whole
    finally:
        file.write_bytes(whole)


@cases()
@given(name=st.sampled_from(FILES), data=st.data())
def test_a_damaged_checkpoint_is_passed_over(root: Path, name: str, data: st.DataObject) -> None:
    said: list[str] = []
    file = root / "step_000002" / name
    other = data.draw(damaged([file.read_bytes()]) | st.binary(max_size=20))
    with changed(file, other) as whole:
        found = latest_checkpoint(root, said.append)
    assert found is not None
    if found[0] == 2:
        assert other == whole or name == SUMS, "what changed is no part of the run"
        assert said == []
    else:
        assert found[0] == 1
        assert len(said) == 1 and said[0].startswith(f"{root / 'step_000002'} is damaged (")


@cases()
@given(missing=st.sets(st.sampled_from([name for name in FILES if name != SUMS]), min_size=1))
def test_a_checkpoint_that_lacks_a_file_is_passed_over(root: Path, missing: set[str]) -> None:
    said: list[str] = []
    whole = {name: (root / "step_000002" / name).read_bytes() for name in missing}
    for name in missing:
        (root / "step_000002" / name).unlink()
    try:
        found = latest_checkpoint(root, said.append)
    finally:
        for name, content in whole.items():
            (root / "step_000002" / name).write_bytes(content)
    assert found is not None and found[0] == 1
    assert len(said) == (DONE not in missing), "one without DONE was never finished, which needs no word"


@cases(cost=2)
@given(st.data())
def test_a_state_without_sums_is_read_or_refused(root: Path, data: st.DataObject) -> None:
    """Checkpoints from before there were sums have nothing but this between a changed file and the optimizer."""
    from percasym.engine.checkpoint import read_state
    from percasym.engine.ranks import SINGLE_RANK

    file = root / "step_000001" / "engine.pt"
    with changed(file, data.draw(damaged([file.read_bytes()]) | st.binary(max_size=40))):
        try:
            state = read_state(root / "step_000001", SINGLE_RANK, Mock(split=False, layout=list))
        except ConfigError as error:
            said = str(error)
            assert "\n" not in said
            return
        assert {"random", "optimizer"} <= state.keys()


@cases(cost=100)
@given(st.data())
def test_weights_without_sums_are_all_there_or_refused(tiny: Path, data: st.DataObject) -> None:
    """What a header no longer names may not begin at random: only the numbers themselves can change unseen."""
    from percasym.models import checkpoint
    from percasym.models.locate import CheckpointError

    file = tiny / "model.safetensors"
    whole = file.read_bytes()
    size = 8 + int.from_bytes(whole[:8], "little")
    head = data.draw(damaged([whole[:size]]))
    with changed(file, head + whole[size:]):
        try:
            model = checkpoint.model(str(tiny))
        except CheckpointError as error:
            said = str(error)
            assert "\n" not in said and said.startswith((f"The checkpoint {tiny} could not be loaded (", f"{tiny}/"))
            return
    assert {name: value.shape for name, value in model.state_dict().items()} == shapes(tiny)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the real class with random weights."""
    from percasym.models.architecture import write_blank
    from percasym.models.checkpoint import silence_transformers

    silence_transformers()
    folder = tmp_path_factory.mktemp("tiny")
    write_blank(folder, ["Solve the Sudoku."])
    return folder


def shapes(folder: Path) -> dict[str, object]:
    from percasym.models import checkpoint

    return {name: value.shape for name, value in checkpoint.model(str(folder)).state_dict().items()}


def test_weights_that_lack_a_tensor_are_refused(tiny: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from percasym.models import checkpoint
    from percasym.models.locate import CheckpointError

    shutil.copytree(tiny, tmp_path / "less")
    file = tmp_path / "less" / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in sorted(weights) if name.endswith("norm.weight"))
    save_file({key: value for key, value in weights.items() if key != name}, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"could not be loaded \(it lacks {name}"):
        checkpoint.model(str(tmp_path / "less"))
