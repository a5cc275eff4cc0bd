"""The lines of a study expand to the words of single runs."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from percasym.config.schema import ConfigError
from percasym.launch.sweep.cells import expanded


def jobs(cells: list[str], params: dict[str, object], *given: str) -> list[str]:
    return [" ".join(words) for words in expanded(cells, params, given, OverridesParser.create().parse_overrides)]


def test_cells_are_a_sum_of_products_and_params_vary_slowest() -> None:
    cells = ["balance=none", "balance=fixed balance.weight=0.1,0.3"]
    one = ["balance=none", "balance=fixed balance.weight=0.1", "balance=fixed balance.weight=0.3"]
    assert jobs(cells, {"seed": "0,1"}) == [f"seed={seed} {cell}" for seed in (0, 1) for cell in one]


def test_without_cells_a_sweep_is_one_product() -> None:
    assert jobs([], {}, "a=1,2", "b=range(0,2)", "c=x") == ["a=1 b=0 c=x", "a=1 b=1 c=x", "a=2 b=0 c=x", "a=2 b=1 c=x"]
    assert jobs([], {}) == [""], "nothing is swept: one run"


def test_the_command_line_wins_over_params_and_cells_of_the_same_key() -> None:
    cells, params = ["balance=none", "balance=fixed balance.weight=0.1,0.3"], {"seed": "0,1", "task": "sudoku"}
    assert jobs(cells[:1], params, "++seed=5") == ["task=sudoku ++seed=5 balance=none"], "whatever prefix Hydra needs"
    assert jobs(cells, params, "seed=5", "balance=fixed", "balance.weight=0.2") == ["task=sudoku seed=5 balance=fixed balance.weight=0.2"]
    assert len(jobs(cells, params, "task=maze,sudoku")) == 2 * 2 * 3, "another key multiplies the cells"


def test_lists_and_quotes_are_read_as_a_shell_and_hydra_read_them() -> None:
    assert jobs(["task.givens=[8,10],[9,9] model.path='my model'"], {}) == [
        "task.givens=[8,10] model.path=my model",
        "task.givens=[9,9] model.path=my model",
    ]


def test_a_sweep_over_an_interval_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^lr=interval\(0,1\) is no list of values to sweep over: write lr=0\.1,0\.3 or range\(1,4\)\.$"):
        jobs([], {}, "lr=interval(0,1)")
