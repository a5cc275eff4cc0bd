"""A key-value cache that grows without copies and without padding.

The dynamic cache of transformers concatenates the whole history at every token, and its static cache attends to its full length. This one
writes into a preallocated buffer and returns a view of the filled part. When rows finish, only the rows that move into their places are
copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

GRANULE = 64
"""oneDNN compiles a kernel for each shape of a product in bfloat16: lengths are rounded up to this, so that a batch meets a dozen."""


class RoomyLayer(CacheLayerMixin):
    """Keys and values of one layer in buffers of `capacity` tokens, of which the first `rows` rows are in use.

    Values are held as [B, H, capacity, D] and keys transposed, [B, H, D, capacity]: a token's scores over the whole history are then
    products of long rows.
    """

    is_sliding = False

    def __init__(self, capacity: int, dtype: torch.dtype | None = None) -> None:
        super().__init__()
        self.capacity, self.length, self.rows, self.stored = capacity, 0, 0, dtype

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate for the batch and heads of the first states, in the chosen type or that of the first values."""
        self.rows, heads, _, width = key_states.shape
        dtype = self.stored or value_states.dtype  # Under autocast keys come in float32, and their product is lower.
        room = -(-self.capacity // GRANULE) * GRANULE
        self.keys = key_states.new_zeros(self.rows, heads, width, room, dtype=dtype)
        self.values = value_states.new_zeros(self.rows, heads, room, value_states.shape[-1], dtype=dtype)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens and return those of all tokens, [B, H, T, D]: views, except in the first call."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        start, self.length = self.length, self.length + key_states.shape[2]
        keys, values = self.keys[: self.rows, ..., : self.length].mT, self.values[: self.rows, :, : self.length]
        keys[:, :, start:] = key_states
        values[:, :, start:] = value_states
        return (keys, values) if start else (key_states, value_states)

    def rounded(self) -> tuple[Tensor, Tensor]:
        """As `update` returns them, but up to a multiple of GRANULE tokens; what is not filled is finite."""
        assert self.keys is not None and self.values is not None, "nothing is cached yet"
        width = -(-self.length // GRANULE) * GRANULE
        return self.keys[: self.rows, ..., :width].mT, self.values[: self.rows, :, :width]

    def keep(self, sources: Tensor, targets: Tensor, rows: int) -> None:
        """Continue with `rows` rows, after those at `sources` were copied to `targets`."""
        assert self.keys is not None and self.values is not None, "nothing is cached yet"
        for states in (self.keys[..., : self.length], self.values[:, :, : self.length]):
            states[targets] = states[sources]
        self.rows = rows

    def expand(self, times: int) -> None:
        """Repeat every row `times` times, its copies side by side."""
        assert self.keys is not None and self.values is not None, "nothing is cached yet"
        filled = slice(self.length)
        self.keys = self._repeated(self.keys, (..., filled), times)
        self.values = self._repeated(self.values, (..., filled, slice(None)), times)
        self.rows *= times

    def _repeated(self, states: Tensor, filled: tuple[Any, ...], times: int) -> Tensor:
        """`states` with every row repeated `times` times; only the filled part is copied."""
        repeated = states.new_zeros(len(states) * times, *states.shape[1:])
        repeated.unflatten(0, (len(states), times))[filled] = states[:, None][filled]
        return repeated

    def get_seq_length(self) -> int:
        """Number of cached tokens."""
        return self.length

    def get_max_length(self) -> int:
        """Number of tokens that fit."""
        return self.capacity

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys after `query_length` more tokens."""
        return self.length + query_length, 0


class RoomyCache(Cache):
    """One `RoomyLayer` for each layer of a model."""

    def __init__(self, num_layers: int, capacity: int, dtype: torch.dtype | None = None) -> None:
        """`dtype` is the type in which keys and values are stored; by default that of the first values."""
        self.roomy = [RoomyLayer(capacity, dtype) for _ in range(num_layers)]
        super().__init__(layers=[*self.roomy])

    def keep(self, order: Sequence[int]) -> None:
        """Continue with the rows in `order`; rows whose index stays the same are not copied."""
        moved = [(source, target) for target, source in enumerate(order) if source != target]
        sources, targets = torch.tensor(moved, dtype=torch.long).view(-1, 2).T  # Empty when only the last rows finished.
        for layer in self.roomy:
            layer.keep(sources, targets, len(order))

    def expand(self, times: int) -> None:
        """Repeat every row `times` times, its copies side by side."""
        for layer in self.roomy:
            layer.expand(times)
