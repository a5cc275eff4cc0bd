"""Build the classes that a configuration names with `_target_`.

Unlike `hydra.utils.instantiate`, only dataclasses of this package and of the packages in `plugins` are called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from typing import Any

from percasym.config.schema import ConfigError, Plain, build, dump
from percasym.config.settings import Evaluation

GROUPS: dict[str, tuple[str, ...]] = {
    "task": (
        "name", "lacks", "sample", "truth", "parse", "agreement", "verify", "draw", "solve", "valid", "canonical", "right", "about",
        "checked",
    ),
    "model": ("checkpoint", "parts", "codec", "load", "save", "image_settings", "limits", "prompt", "row", "collate"),
    "paradigm": ("rows_per_forward",),
    "balance": ("needs", "start", "step"),
    "engine": ("precision",),
    "tracker": ("start",),
    "reward": ("score|score_grade",),
    "tokens": ("paradigm", "without", "gains", "factors"),
    "rollout": (),
}  # fmt: skip
"""The plug-in groups, and the methods and attributes that a plug-in of each must have (of `a|b`, one)."""

EVALUATION = "evaluation"
"""The section of a configuration whose options grow with the versions as those of a group do."""

MOVED = {
    "percasym.paradigm.Sft": "percasym.config.paradigm.Sft",
    "percasym.paradigm.Rl": "percasym.config.paradigm.Rl",
    "percasym.sampling.Native": "percasym.config.sampling.Native",
    "percasym.sampling.Vllm": "percasym.config.sampling.Vllm",
    "percasym.settings.TorchSettings": "percasym.config.settings.TorchSettings",
    "percasym.settings.DeepSpeedSettings": "percasym.config.settings.DeepSpeedSettings",
}
"""Earlier class paths in recorded configurations -> today's."""


def trust(packages: Sequence[str]) -> tuple[str, ...]:
    """The packages whose classes may be named: percasym and these. Raises ConfigError for an invalid package name."""
    for package in packages:
        if not package.isidentifier():
            raise ConfigError(f"plugins must name packages, as plugins=[my_tasks], got {package!r}.")
    return ("percasym", *packages)


def plugin(group: str, values: object, choice: str | None, trusted: Sequence[str]) -> Any:
    """An instance of the dataclass `values["_target_"]`, built from the other values; `choice` is the option of the group, for messages.

    Raises ConfigError.
    """
    if not isinstance(values, dict) or not isinstance(values.get("_target_"), str):
        raise ConfigError(f"{group}={choice} names no class; choose an option of the group, or set {group}._target_.")
    named: str = values["_target_"]
    target = MOVED.get(named, named)
    module, _, name = target.rpartition(".")
    if not all(part.isidentifier() for part in target.split(".")):
        raise ConfigError(f"{group}._target_ must be the dotted name of a class, got {target!r}.")
    if module.split(".")[0] not in trusted:
        raise ConfigError(f"{group}._target_={target} lies outside {', '.join(trusted)}; add its package to plugins=[...] if you trust it.")
    try:
        cls = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{group}._target_={target} cannot be imported ({error}).") from error
    if not (isinstance(cls, type) and is_dataclass(cls)):
        raise ConfigError(f"{group}._target_={target} is no dataclass, so it cannot serve as {group}.")
    if missing := [method for method in GROUPS[group] if not any(hasattr(cls, name) for name in method.split("|"))]:
        raise ConfigError(f"{group}._target_={target} has no {missing[0]}, so it cannot serve as {group}.")
    return build(cls, {key: value for key, value in values.items() if key != "_target_"}, group, f"{group}={choice}" if choice else None)


def recorded(chosen: object) -> dict[str, Plain]:
    """The values from which `plugin` builds an equal object."""
    fields = dump(chosen)
    assert isinstance(fields, dict)
    return {"_target_": f"{type(chosen).__module__}.{type(chosen).__qualname__}", **fields}


def current(config: Mapping[str, Any], plugins: Sequence[str]) -> dict[str, Any]:
    """A recorded configuration as this version records it; `plugins` are the packages that the user trusts. Raises ConfigError."""
    trusted = trust(plugins)
    return {key: updated(key, value, trusted) for key, value in config.items()}


def updated(group: str, values: object, trusted: Sequence[str]) -> object:
    """Recorded `values` of a group, or of the section `evaluation`, as this version records them.

    Moved classes get today's path, and options that did not exist then their defaults. Values that this version cannot read are returned
    unchanged.
    """
    try:
        if group == EVALUATION and isinstance(values, dict):
            return dump(build(Evaluation, values, group))
        return recorded(plugin(group, values, None, trusted)) if group in GROUPS else values
    except ConfigError:
        return values
