"""A checkpoint goes on with another number of ranks: `on_other_ranks.py` under torchrun, with two processes, then one, and so on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from percasym.config.schema import ConfigError
from tests.torchrun import run_on_ranks

FILE = Path(__file__).with_name("on_other_ranks.py")


def stage(folder: Path, num_ranks: int, chosen: str, marked: str) -> None:
    """Run some tests of `on_other_ranks.py` in so many processes, on the checkpoints in this folder."""
    run_on_ranks(FILE, options=["-k", chosen, "-m", marked], num_ranks=num_ranks, environment={"PERCASYM_CHECKPOINTS": str(folder)})


@pytest.mark.slow  # A run of train.py does it in every suite: tests/integration/test_many_ranks.py.
def test_what_two_ranks_wrote_goes_on_with_one(tmp_path: Path) -> None:
    stage(tmp_path, 2, "test_write", "not slow")
    stage(tmp_path, 1, "test_resume", "not slow")


def test_a_split_state_of_an_earlier_version_names_the_number_of_ranks_it_needs(make_engine, tiny_qwen, tiny_batch, tmp_path: Path) -> None:
    """Before layouts were written, nothing told how the flat tensors of several ranks belong together."""
    engine = make_engine("deepspeed2", tiny_qwen())
    engine.backward(engine.nll(tiny_batch()).sum())
    engine.step(1e-3)
    engine.save(tmp_path)
    state = torch.load(tmp_path / "engine.pt", weights_only=True)
    old = {name: value for name, value in state.items() if name not in ("layout", "split")}
    torch.save(old, tmp_path / "engine.pt")
    make_engine("deepspeed2", tiny_qwen()).load(tmp_path)  # On the same number of ranks it goes on.
    torch.save(old | {"num_ranks": 2}, tmp_path / "engine.pt")
    with pytest.raises(
        ConfigError, match=r"written by 2 processes of an earlier version, and this run has 1\. Resume with 2 \(launch\.nproc"
    ):
        make_engine("deepspeed2", tiny_qwen()).load(tmp_path)
    for damaged in ("two", 0, 10**9):
        torch.save(state | {"num_ranks": damaged}, tmp_path / "engine.pt")
        with pytest.raises(ConfigError, match=rf"it gives {damaged!r} as the number of processes"):
            make_engine("deepspeed2", tiny_qwen()).load(tmp_path)


@pytest.mark.slow
def test_any_engine_goes_on_with_any_number_of_ranks(tmp_path: Path) -> None:
    everything = "slow or not slow"
    for num_ranks, chosen in ((2, "test_write"), (1, "test_write or test_resume"), (4, "test_resume or test_write"), (2, "test_resume")):
        stage(tmp_path, num_ranks, chosen, everything)
