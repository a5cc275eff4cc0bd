"""The tests of this folder run under a SLURM of their own: `make test-slurm`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import cluster, missing_programs

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them, so that `make test` leaves them out."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.slurm)


@pytest.fixture(scope="session")
def slurm() -> Iterator[dict[str, str]]:
    """The environment of a cluster of one node."""
    if missing := missing_programs():
        pytest.fail(f"{missing[0]} is not installed. On Debian and Ubuntu: apt-get install slurm-wlm munge.")
    with cluster() as environment:
        yield environment
