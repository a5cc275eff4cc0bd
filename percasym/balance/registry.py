"""The packaged strategies by the name that `balance=` uses: every module of this package that defines a dataclass with `needs` is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from importlib import import_module
from inspect import isabstract
from pkgutil import iter_modules
from typing import Any

from percasym import balance
from percasym.balance.base import Balancer


@cache
def packaged_balancers() -> Mapping[str, type[Balancer]]:
    """The strategy classes of `percasym.balance`, by the name of their module.

    >>> packaged_balancers()["none"].__name__, "moving" in packaged_balancers()
    ('NoBalance', False)
    """
    found: dict[str, Any] = {}
    for name in sorted(module.name for module in iter_modules(balance.__path__)):
        module = f"{balance.__name__}.{name}"
        for cls in vars(import_module(module)).values():
            if isinstance(cls, type) and cls.__module__ == module and _is_strategy(cls):
                found[name] = cls
    return found


def _is_strategy(cls: type[Any]) -> bool:
    return is_dataclass(cls) and not isabstract(cls) and hasattr(cls, "step") and hasattr(cls, "needs")


def balancer(choice: str | Balancer) -> Balancer:
    """A strategy itself, or the packaged one of this name with its default options.

    >>> balancer("ngdiff")
    NGDiff(smoothing=0.0, low=0.0, high=1.0)

    Raises ValueError for an unknown name, and for what is neither.
    """
    if not isinstance(choice, str):
        if not (hasattr(choice, "step") and hasattr(choice, "needs")):
            fixed = f" For a constant weight pass percasym.Fixed(weight={choice})." if isinstance(choice, int | float) else ""
            raise ValueError(f"balance must be a strategy, or the name of one, got {choice!r}.{fixed}")
        return choice
    if choice not in packaged_balancers():
        raise ValueError(f"balance must be a strategy, or the name of one: {', '.join(packaged_balancers())}; got {choice!r}.")
    return packaged_balancers()[choice]()
