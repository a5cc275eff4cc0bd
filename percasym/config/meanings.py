"""What an option means: the docstring below the field of its dataclass, read from the source."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from itertools import pairwise
from textwrap import dedent


def meaning(cls: type, name: str) -> str:
    """The docstring below a field, on one line; empty where there is none."""
    return next((" ".join(found[name].split()) for base in cls.__mro__ if name in (found := _docstrings(base))), "")


@cache
def _docstrings(cls: type) -> Mapping[str, str]:
    if not is_dataclass(cls):
        return {}
    (body,) = (node.body for node in ast.parse(dedent(inspect.getsource(cls))).body if isinstance(node, ast.ClassDef))
    return {
        one.target.id: other.value.value
        for one, other in pairwise(body)
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
        and isinstance(other, ast.Expr) and isinstance(other.value, ast.Constant) and isinstance(other.value.value, str)
    }  # fmt: skip
