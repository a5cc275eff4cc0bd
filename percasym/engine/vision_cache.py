"""A vision tower at rest looks once at pictures that two passes of a step show it.

The prefixes of a step and its whole rows have the same pictures in the same order, cut into other forwards. A tower without a trained
weight says the same of them both times: what it said in the first pass is kept, and dealt out in the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map, tree_map_only
from transformers import PreTrainedModel


class VisionCache:
    """The tower of one model: `looking` in the first pass, `recalling` in the second."""

    def __init__(self, tower: nn.Module) -> None:
        self._tower = tower
        self._said: list[Any] = []
        """Outputs of the first pass; each tensor has as many rows for each row of the input."""
        self._rows = 0
        """Rows of the inputs that they belong to: patches, or tiles."""

    @classmethod
    def of(cls, model: PreTrainedModel) -> VisionCache | None:
        """None where there is no tower, or some of it is trained."""
        tower = model.get_encoder(modality="image")
        return None if tower is model or any(parameter.requires_grad for parameter in tower.parameters()) else cls(tower)

    @contextmanager
    def cache_vision(self) -> Iterator[None]:
        """Inside, what the tower says is kept."""
        self._said, self._rows, look = [], 0, self._tower.forward

        def keep(*pictures: Tensor, **arguments: Any) -> Any:
            said = look(*pictures, **arguments)
            self._said.append(tree_map(lambda value: value, said))  # A copy: the caller writes into its own.
            self._rows += _rows(pictures, arguments)
            return said

        with self._instead(keep):
            yield

    @contextmanager
    def reuse_vision(self) -> Iterator[None]:
        """Inside, the same pictures in the same order, however cut, are answered from what was kept, and are then forgotten."""
        said = tree_map(_joined, *self._said) if self._said else None
        at, total = 0, self._rows
        self._said = []

        def deal(*pictures: Tensor, **arguments: Any) -> Any:
            nonlocal at
            start, at = at, at + _rows(pictures, arguments)
            assert at <= total, "the second pass shows more pictures than the first"
            return tree_map_only(Tensor, lambda rows: rows[start * len(rows) // total : at * len(rows) // total], said)

        with self._instead(deal):
            yield
        assert at == total, "the second pass shows fewer pictures than the first"

    @contextmanager
    def _instead(self, forward: Callable[..., Any]) -> Iterator[None]:
        self._tower.forward = forward
        try:
            yield
        finally:
            del self._tower.forward


def _joined(*parts: Any) -> Any:
    """Tensors row after row; of anything else (None, mostly), the first."""
    return torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0]


def _rows(pictures: tuple[Tensor, ...], arguments: dict[str, Any]) -> int:
    """Rows of the input, which families give with or without its name."""
    return len(pictures[0] if pictures else arguments["pixel_values"])
