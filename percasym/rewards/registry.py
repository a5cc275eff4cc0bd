"""All rewards of the package, so that every run can say of each what it would have been worth."""

from __future__ import annotations

from collections.abc import Mapping

from percasym.rewards.augmentation import Augmentation
from percasym.rewards.base import Reward
from percasym.rewards.blindfold_self import BlindfoldSelf
from percasym.rewards.blindfold_solver import BlindfoldSolver
from percasym.rewards.confidence import Confidence
from percasym.rewards.consensus import Consensus
from percasym.rewards.faithful import Faithful
from percasym.rewards.image_dependence import ImageDependence
from percasym.rewards.oracle import Oracle
from percasym.rewards.rerender import Rerender
from percasym.rewards.valid_state import ValidState
from percasym.tasks.base import SKILLS, Skill, Task

REWARDS: Mapping[str, type[Reward]] = {
    "oracle": Oracle,
    "consensus": Consensus,
    "rerender": Rerender,
    "blindfold_solver": BlindfoldSolver,
    "blindfold_self": BlindfoldSelf,
    "valid_state": ValidState,
    "faithful": Faithful,
    "confidence": Confidence,
    "image_dependence": ImageDependence,
    "augmentation": Augmentation,
}
"""Each under the name that `reward=` knows it by."""


ASKED: Mapping[type[Reward], Skill] = {Rerender: "draw", BlindfoldSolver: "solve", ValidState: "valid", Faithful: "verify"}
"""What a reward asks of a task beyond reading percepts and comparing them."""


def watched(chosen: Reward, task: Task) -> tuple[str, dict[str, Reward]]:
    """The name of the chosen reward, and all that `task` can serve by name: the chosen one as it is, the others as they come.

    Raises ValueError when the chosen one asks for what the task cannot do.
    """
    name = next((name for name, cls in REWARDS.items() if type(chosen) is cls), type(chosen).__name__)
    if missing := [skill for skill in skills(chosen) if skill in task.lacks]:
        served = ", ".join(other for other, cls in REWARDS.items() if not set(skills(cls())) & set(task.lacks))
        remedy = "Set reward.only_valid=false, or choose among" if isinstance(chosen, BlindfoldSelf) else "Choose among"
        raise ValueError(f"reward={name} needs a task that can {SKILLS[missing[0]]}; collected data cannot. {remedy} {served}.")
    others = {other: cls() for other, cls in REWARDS.items()}
    return name, {other: reward for other, reward in others.items() if not set(skills(reward)) & set(task.lacks)} | {name: chosen}


def skills(reward: Reward) -> list[Skill]:
    """What a reward asks of a task beyond reading percepts and comparing them.

    >>> skills(BlindfoldSolver()), skills(BlindfoldSelf(only_valid=False))
    (['solve', 'valid'], [])
    """
    asked: list[Skill] = [ASKED[type(reward)]] if type(reward) in ASKED else []
    return [*asked, "valid"] if isinstance(reward, BlindfoldSolver | BlindfoldSelf) and reward.only_valid else asked
