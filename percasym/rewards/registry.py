"""Which rewards a run measures: those of this package that its task can serve, and the one it trains on.

Packaged rewards are discovered, not listed: a module of `percasym.rewards` that defines a dataclass with `score` or `score_grade` is a
reward under the module's name. The chosen reward may come from another package; its name is then that of its class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass, replace
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from percasym import rewards
from percasym.rewards.base import Labelled, Reward
from percasym.tasks.base import SKILLS, Skill, Task


@cache
def packaged_rewards() -> Mapping[str, type[Reward]]:
    """The reward classes of `percasym.rewards` by the name that `reward=` uses: those that read labels first, then by name.

    >>> list(packaged_rewards())[:3]
    ['oracle', 'augmentation', 'blindfold_self']
    """
    found = {module.name: cls for module in iter_modules(rewards.__path__) for cls in _reward_classes(f"{rewards.__name__}.{module.name}")}
    return dict(sorted(found.items(), key=lambda item: (not issubclass(item[1], Labelled), item[0])))


def measured_rewards(chosen: Reward, task: Task) -> tuple[str, dict[str, Reward]]:
    """The name of the chosen reward, and all rewards that `task` can serve, by name: the chosen one as configured, the others by default.

    Raises ValueError when the task lacks a skill that the chosen reward requires.
    """
    packaged = packaged_rewards()
    name = next((name for name, cls in packaged.items() if type(chosen) is cls), type(chosen).__name__)
    served = {other: reward for other, cls in packaged.items() if not missing_skills(reward := cls(), task)}
    if missing := missing_skills(chosen, task):
        remedy = "Set reward.only_valid=false, or choose among" if _served_without_validity(chosen, task) else "Choose among"
        raise ValueError(f"reward={name} needs a task that can {SKILLS[missing[0]]}; collected data cannot. {remedy} {', '.join(served)}.")
    return name, served | {name: chosen}


def missing_skills(reward: Reward, task: Task) -> list[Skill]:
    """The skills that a reward requires and `task` lacks; a reward without `requires` needs only `parse` and `agreement`."""
    return [skill for skill in getattr(reward, "requires", ()) if skill in task.lacks]


def _served_without_validity(reward: Any, task: Task) -> bool:
    """Could the task serve this reward with its option `only_valid` turned off?"""
    return hasattr(reward, "only_valid") and not missing_skills(replace(reward, only_valid=False), task)


def _reward_classes(module: str) -> Iterator[Any]:
    """The reward dataclasses that a module defines; imported ones belong to their own module."""
    for cls in vars(import_module(module)).values():
        own = isinstance(cls, type) and cls.__module__ == module and is_dataclass(cls)
        if own and (hasattr(cls, "score") or hasattr(cls, "score_grade")):
            yield cls
