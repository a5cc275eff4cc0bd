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

SHELF: Mapping[str, type[Reward]] = {
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


def watched(chosen: Reward) -> tuple[str, dict[str, Reward]]:
    """The name of the chosen reward, and all rewards by name: the chosen one as it is, the others as they come."""
    name = next((name for name, cls in SHELF.items() if type(chosen) is cls), type(chosen).__name__)
    return name, {name: cls() for name, cls in SHELF.items()} | {name: chosen}
