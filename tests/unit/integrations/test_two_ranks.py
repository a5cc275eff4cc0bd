"""Two processes with gloo, under DDP and DeepSpeed: each file under torchrun, all of its tests in one pair of processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torchrun import run_on_ranks

HERE = Path(__file__).resolve().parent


def on_two_ranks(file: str, *options: str) -> None:
    """Run the tests of a file beside this one."""
    own = ["-W", "ignore::pytest.PytestUnraisableExceptionWarning"]  # The ranks clear one temporary folder.
    run_on_ranks(HERE / file, options=[*own, *options])


@pytest.mark.slow
def test_two_processes_train_as_percasym_does_on_one() -> None:
    on_two_ranks("trainer_on_two_ranks.py", "-m", "not slow")


@pytest.mark.slow
def test_two_processes_train_as_percasym_does_on_one_in_every_case() -> None:
    on_two_ranks("trainer_on_two_ranks.py", "-m", "slow")


@pytest.mark.slow
def test_trl_trains_on_two_processes_as_percasym_does_on_one() -> None:
    pytest.importorskip("trl", reason="pip install 'percasym[trl]'")
    on_two_ranks("trl_on_two_ranks.py")


@pytest.mark.slow
def test_strategies_with_one_backward_are_exact_under_zero() -> None:
    on_two_ranks("trainer_under_zero.py")
