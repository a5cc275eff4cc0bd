"""The public interface: every name resolves, is typed and documented, and costs nothing until it is used."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import percasym
from percasym.balance.base import Balancer, refuse_strategy_of_rl
from percasym.balance.registry import packaged_balancers

ROOT = Path(__file__).resolve().parents[3]
LIGHT = sorted(set(percasym.__all__) - {"audit", "span_loss", "__version__"})
"""Names that need no deep-learning library even when they are used."""
LOADED = "print(*({'torch', 'transformers', 'hydra', 'numpy', 'PIL'} & set(sys.modules)))"


def fresh(*lines: str) -> str:
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_loads_nothing() -> None:
    assert fresh("import sys, percasym", "dir(percasym)", LOADED) == ""


def test_only_what_computes_with_tensors_loads_torch() -> None:
    assert "torch" not in fresh("import sys", f"from percasym import {', '.join(LIGHT)}", LOADED).split()
    assert "torch" in fresh("import sys", "from percasym import span_loss", LOADED).split()


@pytest.mark.parametrize("name", percasym.__all__)
def test_every_name_resolves_and_is_documented(name: str) -> None:
    found = getattr(percasym, name)
    assert name in dir(percasym)
    if name != "__version__":
        assert inspect.getdoc(found)
        assert found.__name__ == name


def test_every_name_is_typed() -> None:
    tree = ast.parse((ROOT / "percasym" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert typed == {name: f"percasym.{home}" for name, home in percasym._HOMES.items()}
    assert (ROOT / "percasym" / "py.typed").is_file()


def in_other_trainers(strategy: Balancer) -> bool:
    try:
        refuse_strategy_of_rl(strategy)
    except ValueError:
        return False
    return True


def test_every_strategy_that_other_trainers_can_use_is_public() -> None:
    strategies = [cls() for cls in packaged_balancers().values()]
    usable = {type(one).__name__ for one in strategies if in_other_trainers(one)}
    assert usable < set(percasym.__all__)
    assert {type(one).__name__ for one in strategies} - usable == {"Saw", "Staged"}


def test_every_name_is_on_the_page() -> None:
    page = (ROOT / "docs" / "in-your-trainer.md").read_text()
    assert [name for name in percasym.__all__ if f"`{name}" not in page and name != "__version__"] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'percasym' has no attribute 'NgDiff'"):
        percasym.NgDiff  # noqa: B018
