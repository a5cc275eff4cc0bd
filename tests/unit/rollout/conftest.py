"""A model of each family with the prompts of a Sudoku and of a graph: the packaged Qwen3-VL, a random InternVL3.5."""

from __future__ import annotations

from pathlib import Path

import pytest

from percasym.models.base import Family
from percasym.tasks.graph_coloring.task import GraphColoring
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import Prompt, SampleKey


@pytest.fixture(scope="module", params=["qwen3vl", "internvl35"])
def family(request: pytest.FixtureRequest, blank_internvl35: Path) -> Family:
    from percasym.models.internvl35 import InternVL35
    from percasym.models.qwen3vl import Qwen3VL

    return Qwen3VL() if request.param == "qwen3vl" else InternVL35(path=str(blank_internvl35))


@pytest.fixture(scope="module")
def model(family: Family):
    return family.load().eval()


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    """Two pictures of unlike size, so that their rows are of unlike length."""
    return [task.sample(SampleKey(task=task.name, split="test", seed=0, index=0)).prompt for task in (Sudoku(), GraphColoring())]
