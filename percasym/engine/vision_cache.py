"""Cache of the features of a frozen vision tower, reused across the two passes of a step.

The prefixes of a step and its whole rows have the same pictures in the same order, divided into other forwards. The features of a tower
without trained weights are the same in both passes: the first pass caches them, the second reads the cache.

In RL the rollouts of a prompt have one picture, in several forwards and epochs of a round: its features are computed once (`sharing`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map, tree_map_only
from transformers import PreTrainedModel

Share = Callable[[Sequence[Hashable]], AbstractContextManager[None]]
"""A context for a forward whose pictures have these keys."""


class VisionCache:
    """The cache of one model's vision tower: `cache_vision` around the first pass, `reuse_vision` around the second."""

    def __init__(self, tower: nn.Module) -> None:
        self._tower = tower
        self._cached: list[Any] = []
        """Outputs of the first pass; each tensor has a fixed number of rows for each row of the input."""
        self._rows = 0
        """Rows of all inputs of the first pass: patches, or tiles."""

    @classmethod
    def of(cls, model: PreTrainedModel) -> VisionCache | None:
        """None for a model without a vision tower, or with trained weights in it."""
        tower = model.get_encoder(modality="image")
        return None if tower is model or any(parameter.requires_grad for parameter in tower.parameters()) else cls(tower)

    @contextmanager
    def cache_vision(self) -> Iterator[None]:
        """Within the context, cache the outputs of the tower."""
        self._cached, self._rows, forward = [], 0, self._tower.forward

        def cached(*pictures: Tensor, **arguments: Any) -> Any:
            output = forward(*pictures, **arguments)
            self._cached.append(tree_map(lambda value: value, output))  # A new structure: the caller modifies its own.
            self._rows += _rows(pictures, arguments)
            return output

        with self._replaced(cached):
            yield

    @contextmanager
    def reuse_vision(self) -> Iterator[None]:
        """Within the context, return the cached outputs for the same pictures in the same order, however batched, and drop them."""
        outputs = tree_map(_joined, *self._cached) if self._cached else None
        at, total = 0, self._rows
        self._cached = []

        def reused(*pictures: Tensor, **arguments: Any) -> Any:
            nonlocal at
            start, at = at, at + _rows(pictures, arguments)
            assert at <= total, "the second pass has more pictures than the first"
            return tree_map_only(Tensor, lambda rows: rows[start * len(rows) // total : at * len(rows) // total], outputs)

        with self._replaced(reused):
            yield
        assert at == total, "the second pass has fewer pictures than the first"

    @contextmanager
    def sharing(self) -> Iterator[Share]:
        """Within the context, `share(keys)` is a context for one forward whose pictures, in order, have these keys.

        The features of a key are computed once and dropped at the end. All pictures of a forward must have one size: the input and each
        output are divided evenly among them.
        """
        store: dict[Hashable, Any] = {}

        @contextmanager
        def share(keys: Sequence[Hashable]) -> Iterator[None]:
            forward = self._tower.forward

            def shared(*pictures: Tensor, **arguments: Any) -> Any:
                missing = {key: place for place, key in reversed([*enumerate(keys)]) if key not in store}
                if missing:
                    chosen = list(missing.values())

                    def of_missing(tensor: Tensor) -> Tensor:
                        assert len(tensor) % len(keys) == 0, "the pictures of a forward have one size"
                        return tensor.unflatten(0, (len(keys), -1))[chosen].flatten(0, 1)

                    output = forward(*map(of_missing, pictures), **tree_map_only(Tensor, of_missing, arguments))
                    for number, key in enumerate(missing):
                        store[key] = _part(output, number, len(missing))
                return tree_map(_joined, *(store[key] for key in keys))

            with self._replaced(shared):
                yield

        yield share

    @contextmanager
    def _replaced(self, forward: Callable[..., Any]) -> Iterator[None]:
        self._tower.forward = forward
        try:
            yield
        finally:
            del self._tower.forward


def _part(output: Any, number: int, count: int) -> Any:
    """The rows of picture `number` of `count` pictures of one size."""
    return tree_map_only(Tensor, lambda rows: rows.unflatten(0, (count, -1))[number], output)


def _joined(*parts: Any) -> Any:
    """Tensors concatenated along rows; of anything else (mostly None), the first."""
    return torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0]


def _rows(pictures: tuple[Tensor, ...], arguments: dict[str, Any]) -> int:
    """Rows of the input, which families pass by position or by name."""
    return len(pictures[0] if pictures else arguments["pixel_values"])
