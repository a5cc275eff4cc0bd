"""The processes that share one run, and the few things they say to each other.

Every rank computes the same counts, losses and weights from totals, so no rank is told what to do;
rank 0 alone writes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self, TypeVar, cast

import torch
from torch import Tensor, distributed

T = TypeVar("T")

BUCKET_NUMEL = 2**24
"""Elements that travel in one message (64 MiB in float32): large enough for full bandwidth, small beside a model."""
COLLECTIVE_TIMEOUT = timedelta(hours=2)
"""How long a rank waits for another: longer than writing any checkpoint. A rank that dies is noticed at once by whoever started it."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process and its peers."""

    rank: int
    num_ranks: int
    device: torch.device
    """Where tensors must lie to travel."""

    @classmethod
    def join(cls, rank: int, num_ranks: int, device: torch.device) -> Self:
        """Meet the peers under the address in the environment (torchrun's variables); alone, nobody is waited for."""
        if num_ranks > 1 and not distributed.is_initialized():
            backend = "nccl" if device.type == "cuda" else "gloo"
            distributed.init_process_group(backend, rank=rank, world_size=num_ranks, timeout=COLLECTIVE_TIMEOUT)
        return cls(rank, num_ranks, device)

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Element-wise sum over ranks, in the type and on the device of `values`."""
        if self.num_ranks == 1:
            return values
        summed = values.to(self.device, copy=True)
        distributed.all_reduce(summed)
        return summed.to(values.device)

    def all_reduce_max(self, values: list[int]) -> list[int]:
        """Element-wise greatest over ranks of as many numbers from each."""
        if self.num_ranks == 1:
            return values
        greatest = torch.tensor(values, device=self.device)
        distributed.all_reduce(greatest, distributed.ReduceOp.MAX)
        return greatest.tolist()

    def all_reduce_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over ranks; all ranks give tensors of the same shapes."""
        if self.num_ranks == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            distributed.all_reduce(flat)
            for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def gather(self, value: T) -> list[T]:
        """What every rank gives here, in the order of ranks."""
        if self.num_ranks == 1:
            return [value]
        values: list[Any] = [None] * self.num_ranks
        distributed.all_gather_object(values, value)
        return values

    def broadcast(self, ask: Callable[[], T]) -> T:
        """What rank 0 finds; nobody else asks."""
        return cast(T, self.gather(ask() if self.rank == 0 else None)[0])

    def barrier(self) -> None:
        """Go on when every rank is here."""
        if self.num_ranks > 1:
            distributed.barrier()

    def leave(self) -> None:
        """Part from the peers, at the end of the run."""
        if self.num_ranks > 1:
            distributed.destroy_process_group()


ALONE = Ranks(0, 1, torch.device("cpu"))


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Neighbours together up to BUCKET_NUMEL elements; a larger tensor travels alone.

    >>> sizes = (3, 4, BUCKET_NUMEL + 1, 5, BUCKET_NUMEL)
    >>> [[len(tensor) for tensor in bucket] for bucket in _buckets([torch.empty(size, device="meta") for size in sizes])]
    [[3, 4], [16777217], [5], [16777216]]
    """
    buckets: list[list[Tensor]] = []
    room = 0
    for tensor in tensors:
        if not buckets or tensor.numel() > room:
            buckets.append([])
            room = BUCKET_NUMEL
        buckets[-1].append(tensor)
        room -= tensor.numel()
    return buckets
