"""A key-value cache that neither copies nor pads as it grows.

The stock dynamic cache concatenates the whole history at every token; the stock static one attends to
its full length. This one writes into a buffer and hands out a view of what is filled; it can drop rows and repeat them.
"""

from __future__ import annotations

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class RoomyLayer(CacheLayerMixin):
    """Keys and values of one layer in a buffer of `capacity` tokens, [B, H, capacity, D]."""

    is_sliding = False

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity, self.length = capacity, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate for the batch, heads and type of the first states."""
        rows, heads, _, width = key_states.shape
        self.keys = key_states.new_empty(rows, heads, self.capacity, width)
        self.values = value_states.new_empty(rows, heads, self.capacity, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple[Tensor, Tensor]:
        """Append states of new tokens; the views returned hold all tokens so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        start, self.length = self.length, self.length + key_states.shape[2]
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        assert self.keys is not None and self.values is not None, "nothing is cached yet"
        self.keys, self.values = self.keys[rows], self.values[rows]

    def expand(self, times: int) -> None:
        """Every row `times` times, its copies side by side."""
        assert self.keys is not None and self.values is not None, "nothing is cached yet"
        self.keys, self.values = self._repeated(self.keys, times), self._repeated(self.values, times)

    def _repeated(self, states: Tensor, times: int) -> Tensor:
        rows, *rest = states.shape
        repeated = states.new_empty(rows * times, *rest)
        # [B, times, H, length, D]: the part that is not filled yet is not copied.
        repeated.view(rows, times, *rest)[..., : self.length, :] = states[:, None, :, : self.length]
        return repeated

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.length

    def get_max_length(self) -> int:
        """Tokens it can hold."""
        return self.capacity

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys once `query_length` more tokens are in."""
        return self.length + query_length, 0


class RoomyCache(Cache):
    """One `RoomyLayer` for each layer of a model."""

    def __init__(self, num_layers: int, capacity: int) -> None:
        self.roomy = [RoomyLayer(capacity) for _ in range(num_layers)]
        super().__init__(layers=[*self.roomy])

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only."""
        for layer in self.roomy:
            layer.keep(rows)

    def expand(self, times: int) -> None:
        """Every row `times` times, its copies side by side."""
        for layer in self.roomy:
            layer.expand(times)
