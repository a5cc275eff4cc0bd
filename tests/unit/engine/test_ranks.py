"""Two ranks on the CPU: `on_two_ranks.py` and `loading_on_two_ranks.py` under torchrun, all tests in one pair of processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.torchrun import run_on_ranks

FILE, LOADING = (Path(__file__).with_name(name) for name in ("on_two_ranks.py", "loading_on_two_ranks.py"))


def test_two_ranks_do_what_one_does() -> None:
    run_on_ranks(FILE, LOADING, options=["-m", "not slow"])


@pytest.mark.slow
def test_two_ranks_do_what_one_does_under_every_engine() -> None:
    run_on_ranks(FILE, options=["-m", "slow"])
