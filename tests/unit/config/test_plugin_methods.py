"""A class that lacks a method of its group is refused when the configuration is read, not by a traceback in the middle of a run."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from percasym.config.plugins import GROUPS, plugin, trust
from percasym.config.schema import ConfigError, dump, wanted
from percasym.models.base import Family
from percasym.tasks.base import Task

ROOT = Path(__file__).resolve().parents[3]
OPTIONAL = {"model": {"anatomy", "vllm_prompt"}}
"""Methods of the protocol that only some families have; what needs them says so (`percasym plan`, vLLM)."""


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An importable package of a user."""
    module = ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", module)
    return module


MISSING = [("task", "checked"), ("task", "about"), ("model", "limits"), ("model", "save"), ("balance", "needs")]


@pytest.mark.parametrize(("group", "method"), MISSING)
def test_a_class_without_a_method_of_its_group_is_refused(group: str, method: str, package: ModuleType) -> None:
    body = {name.split("|")[0]: lambda self: None for name in GROUPS[group] if name != method}
    package.Mine = dataclass(type("Mine", (), body))
    with pytest.raises(ConfigError, match=rf"{group}._target_=mine.Mine has no {method}, so it cannot serve as {group}\."):
        plugin(group, {"_target_": "mine.Mine"}, None, trust(["mine"]))
    package.Mine = dataclass(type("Mine", (), {**body, method: lambda self: None}))
    assert plugin(group, {"_target_": "mine.Mine"}, None, trust(["mine"]))


@pytest.mark.parametrize(("group", "protocol", "file"), [("task", Task, "tasks/base.py"), ("model", Family, "models/base.py")])
def test_the_methods_of_a_group_are_those_of_its_protocol(group: str, protocol: type, file: str) -> None:
    tree = ast.parse((ROOT / "percasym" / file).read_text())
    body = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == protocol.__name__).body
    members = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    members |= {node.target.id for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}
    assert members - OPTIONAL.get(group, set()) == set(GROUPS[group])


def test_a_field_or_value_that_no_yaml_can_hold_is_a_defect_of_its_class() -> None:
    with pytest.raises(TypeError, match=r"cannot express fields of type <class 'set'>; use scalars, Literal, tuple or a dataclass\."):
        wanted(set)
    with pytest.raises(TypeError, match=r"The configuration cannot express \{1\}\."):
        dump({1})
