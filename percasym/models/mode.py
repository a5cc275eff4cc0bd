"""The mode of a model in training while it answers or is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout, and with a cache: in training mode gradient checkpointing drops the cache, and each token forgets the prompt."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)
