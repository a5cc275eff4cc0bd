"""From plain data to frozen dataclasses, strictly: the dataclass is the schema.

Unlike a general instantiator, it calls the given class only, converts only int to float and list to tuple, and every error is one
sentence that names the key, the value and what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, fields, is_dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from percasym.config.meanings import meaning

T = TypeVar("T")
Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]

MOST = 10**9
"""Largest number of steps, samples, tokens, bytes (our choice): a typo beyond it would end a run hours later, by memory or never."""
SCALARS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}


class ConfigError(ValueError):
    """A configuration that cannot be used; the message is one sentence for the user."""


def build(cls: type[T], values: object, where: str, owner: str | None = None) -> T:
    """An instance of the dataclass `cls` from a mapping; `where` is the dotted key of that mapping, `owner` what messages call it.

    Raises ConfigError for an unknown or missing key, a wrong type, and whatever `cls` itself refuses.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} must be a group of options ({', '.join(options(cls))}), got {values!r}.")
    known = options(cls)
    for key in values:
        if key not in known:
            raise ConfigError(no_such(f"{where}.", str(key), known, owner=owner or where))
    if missing := [name for name, option in known.items() if name not in values and required(option)]:
        raise ConfigError(_not_set(cls, missing[0], f"{where}.{missing[0]}"))
    hints = get_type_hints(cls)
    arguments = {key: read(value, hints[key], f"{where}.{key}") for key, value in values.items()}
    try:
        return cls(**arguments)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


def options(cls: type) -> dict[str, Field[Any]]:
    """The fields of a dataclass that a configuration may set, in order."""
    return {option.name: option for option in fields(cls) if option.init and not option.name.startswith("_")}


def required(option: Field[Any]) -> bool:
    """Whether a field has no default."""
    return option.default is MISSING and option.default_factory is MISSING


def read(value: object, hint: Any, where: str) -> Any:
    """`value` as the type `hint`: a scalar, Literal, tuple, nested dataclass, or an optional one of these."""
    for choice in _choices(hint):
        if is_dataclass(choice) and isinstance(choice, type) and isinstance(value, Mapping):
            return build(choice, value, where)
        if get_origin(choice) is tuple and isinstance(value, list | tuple):
            parts = get_args(choice)
            if parts[-1] is Ellipsis:
                return tuple(read(item, parts[0], f"{where}[{i}]") for i, item in enumerate(value))
            if len(parts) == len(value):
                return tuple(read(item, part, f"{where}[{i}]") for i, (item, part) in enumerate(zip(value, parts, strict=True)))
        elif get_origin(choice) is Literal:
            if any(value == allowed and type(value) is type(allowed) for allowed in get_args(choice)):
                return value
        elif choice is float and isinstance(value, int | float) and not isinstance(value, bool) and _is_finite(value):
            return float(value)
        elif type(value) is choice and choice in SCALARS and choice is not float:  # `type`, not isinstance: a bool is no int.
            return value
    close = get_close_matches(value, _names(hint), n=1) if isinstance(value, str) else []
    guess = f"; did you mean {close[0]}?" if close else "."
    raise ConfigError(f"{where} must be {wanted(hint)}, got {value!r}{guess}")


def wanted(hint: Any) -> str:
    """A type hint in words.

    >>> wanted(tuple[int, int]), wanted(Literal["brief", "full"]), wanted(str | None)
    ('a list of 2 (a whole number, a whole number)', 'brief or full', 'text or null')
    """
    words = []
    for choice in _choices(hint):
        parts = get_args(choice)
        if is_dataclass(choice) and isinstance(choice, type):
            words.append(f"a group of options ({', '.join(options(choice))})")
        elif get_origin(choice) is tuple and parts[-1] is Ellipsis:
            words.append(f"a list (each {wanted(parts[0])})")
        elif get_origin(choice) is tuple:
            words.append(f"a list of {len(parts)} ({', '.join(map(wanted, parts))})")
        elif get_origin(choice) is Literal:
            words.extend(map(str, parts))
        elif choice in SCALARS:
            words.append(SCALARS[choice])
        else:
            raise TypeError(f"The configuration cannot express fields of type {choice}; use scalars, Literal, tuple or a dataclass.")
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def dump(value: object) -> Plain:
    """Plain data (JSON, YAML) of a value that `build` can make: defaults included, tuples as lists, numbers that are not finite as None.

    >>> dump((1, 2.0, None, math.inf))
    [1, 2.0, None, None]
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {name: dump(getattr(value, name)) for name in options(type(value))}
    if isinstance(value, tuple | list):
        return [dump(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None  # As in every file of a run.
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"The configuration cannot express {value!r}.")


def no_such(prefix: str, name: str, known: Iterable[str], *, owner: str) -> str:
    """The message for a key that is not an option of `owner`.

    >>> no_such("balance.", "wieght", ["weight"], owner="balance=fixed")
    'There is no option balance.wieght; did you mean balance.weight? The options of balance=fixed are weight.'
    """
    names = list(known)
    close = get_close_matches(name, names, n=1)
    guess = f"; did you mean {prefix}{close[0]}?" if close else "."
    allowed = f"The options of {owner} are {', '.join(names)}." if names else f"{owner} has no options."
    return f"There is no option {prefix}{name}{guess} {allowed}"


def _not_set(cls: type, name: str, key: str) -> str:
    """The message for a required option without a value, with the option's docstring."""
    with suppress(OSError):  # Of a class without a source file.
        if says := meaning(cls, name):
            return f"{key} is not set. Write {key}=VALUE: {says[0].lower()}{says[1:]}"
    return f"{key} is not set. Write {key}=VALUE, {wanted(get_type_hints(cls)[name])}."


def _choices(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _names(hint: Any) -> list[str]:
    return [name for choice in _choices(hint) if get_origin(choice) is Literal for name in get_args(choice) if isinstance(name, str)]


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # An int too large for a float.
        return False


def at_least(owner: str, low: float, **values: float) -> None:
    """Raise ValueError for options of the group `owner` below `low` or above MOST."""
    for name, value in values.items():
        if not value >= low:
            raise ValueError(f"{owner}.{name} must be at least {low}, got {value}.")
        if value > MOST:
            raise ValueError(f"{owner}.{name} must be at most {MOST}, got {value}.")


def fraction(owner: str, **values: float) -> None:
    """Raise ValueError for options of the group `owner` outside [0, 1]."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{owner}.{name} must lie in [0, 1], got {value}.")


def one_of(owner: str, hint: Any, **values: str) -> None:
    """Raise ValueError for options of the group `owner` that are not among the values of a Literal."""
    for name, value in values.items():
        if value not in get_args(hint):
            raise ValueError(f"{owner}.{name} must be one of {', '.join(get_args(hint))}, got {value!r}.")
