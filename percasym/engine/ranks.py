"""Where a process runs: its rank, its device, and the collectives that it shares with the other ranks.

The rank comes from the environment of whoever started the process: our own launcher, torchrun, or SLURM. All ranks compute the same counts,
losses and weights from all-reduced totals; rank 0 alone writes files that all would write alike.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Self, TypeVar, cast

import torch
from torch import Tensor, distributed
from torch.distributed import Store

from percasym.config.schema import ConfigError
from percasym.engine.rendezvous import meet

T = TypeVar("T")

TORCHRUN = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
"""The variables that torchrun sets, and their values for a single process."""
FIRST_PORT, NUM_PORTS = 20_000, 12_000
"""Ports below those that Linux gives to outgoing connections (32,768 and more)."""

BUCKET_NUMEL = 2**24
"""Elements in one all-reduce (64 MiB in float32): large enough for full bandwidth, small beside a model."""
COLLECTIVE_TIMEOUT = timedelta(hours=2)
"""How long a rank waits for another: longer than writing any checkpoint. The launcher notices a rank that dies at once, and the heartbeat
one that is frozen (heartbeat.py)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankEnvironment:
    """The rank of a process, as its environment variables define it."""

    rank: int = 0
    num_ranks: int = 1
    local_rank: int = 0
    """Index on this machine: which of several visible GPUs it uses."""
    address: Mapping[str, str] = field(default_factory=dict)
    """MASTER_ADDR and MASTER_PORT, where the launcher does not set them itself."""
    hosts_store: bool = field(default=False, repr=False)
    """Whether rank 0 hosts the store of the process group, as under srun; else the process that started the ranks does."""


def rank_environment(environment: Mapping[str, str]) -> RankEnvironment:
    """The rank in these environment variables; a single process without them.

    >>> rank_environment({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "gpu1", "MASTER_PORT": "29500"})
    RankEnvironment(rank=5, num_ranks=8, local_rank=1, address={})
    >>> rank_environment({})
    RankEnvironment(rank=0, num_ranks=1, local_rank=0, address={})

    Raises ConfigError when the variables are no numbers or incomplete, and when SLURM's name no first node.
    """
    if "WORLD_SIZE" in environment:
        rank, num_ranks, local_rank = (_number(environment, name, default) for name, default in TORCHRUN.items())
        missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in environment]
        if num_ranks > 1 and missing:
            raise ConfigError(
                f"WORLD_SIZE={num_ranks} says that this is one of {num_ranks} processes, and {missing[0]} is not set. "
                "Start them with torchrun, or unset WORLD_SIZE."
            )
        by_agent = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # Set by torchrun, and so by our launcher.
        return RankEnvironment(rank=rank, num_ranks=num_ranks, local_rank=local_rank, hosts_store=not by_agent)
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))  # Of this srun; SLURM_NTASKS is that of the whole job.
    if tasks == 1:
        return RankEnvironment()
    rank, local_rank = _number(environment, "SLURM_PROCID", "0"), _number(environment, "SLURM_LOCALID", "0")
    return RankEnvironment(rank=rank, num_ranks=tasks, local_rank=local_rank, address=slurm_address(environment), hosts_store=True)


def slurm_address(environment: Mapping[str, str]) -> Mapping[str, str]:
    """MASTER_ADDR and MASTER_PORT of an srun: the first node of the step, and a port that depends on the job and the step.

    Variables that are set are kept.

    >>> slurm_address({"SLURM_STEP_NODELIST": "gpu[07-08,12],cpu1", "SLURM_JOB_ID": "41", "SLURM_STEP_ID": "0"})
    {'MASTER_ADDR': 'gpu07', 'MASTER_PORT': '21640'}

    Raises ConfigError when no node is named.
    """
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    first = re.match(r"([^\[,]*)(?:\[(\d+))?", nodes)
    address = environment.get("MASTER_ADDR") or ("".join(part or "" for part in first.groups()) if first else "")
    if not address:
        raise ConfigError("srun started several tasks, and SLURM_STEP_NODELIST names no node. Export MASTER_ADDR, the first node.")
    seed = 40 * int(environment.get("SLURM_JOB_ID", "0")) + int(environment.get("SLURM_STEP_ID", "0"))  # Up to 40 steps without a clash.
    return {"MASTER_ADDR": address, "MASTER_PORT": environment.get("MASTER_PORT") or str(FIRST_PORT + seed % NUM_PORTS)}


def _number(environment: Mapping[str, str], name: str, default: str) -> int:
    value = environment.get(name, default)
    if not value.isdecimal():
        raise ConfigError(f"The environment variable {name} must be a whole number, got {value!r}. Unset it, or start with torchrun.")
    return int(value)


def choose_device(local_rank: int = 0) -> torch.device:
    """The GPU of this rank, or the CPU with at most as many threads as this process has cores.

    Where one GPU is visible it is this rank's, whatever its number on the machine: SLURM's --gpus-per-task hides those of other tasks
    (`meet` refuses ranks that see the same one).
    Raises ConfigError when several are visible, and fewer than there are processes.
    """
    if torch.cuda.is_available():
        visible = torch.cuda.device_count()
        index = local_rank if visible > 1 else 0
        if index >= visible:
            raise ConfigError(
                f"Each process takes a GPU, and process {local_rank} of this machine sees {visible}. Start fewer (launch.nproc)."
            )
        torch.cuda.set_device(index)
        return torch.device("cuda", index)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(min(torch.get_num_threads(), usable))  # More threads than cores are 10x slower.
    os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed detects its accelerator at import and warns when there is none.
    return torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process and the others of its run."""

    rank: int
    num_ranks: int
    device: torch.device
    """Where tensors are during a collective."""
    store: Store | None = field(default=None, repr=False, compare=False)
    """Through which the ranks met; None for a single process, and where others made the process group."""

    @classmethod
    def join(cls, rank: int, num_ranks: int, device: torch.device) -> Self:
        """Initialise the process group at the address in the environment (torchrun's variables); no-op for a single process.

        Raises ConfigError when not all ranks arrive, or two of them would share a GPU.
        """
        if num_ranks == 1 or distributed.is_initialized():
            return cls(rank, num_ranks, device)
        store = meet(rank, num_ranks, device, COLLECTIVE_TIMEOUT)
        group = distributed.PrefixStore("default_pg", store)  # As init_process_group does without `store`, which it would not return.
        backend = "nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, store=group, rank=rank, world_size=num_ranks, timeout=COLLECTIVE_TIMEOUT)
        return cls(rank, num_ranks, device, store)

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Element-wise sum over ranks, in the type and on the device of `values`."""
        if self.num_ranks == 1:
            return values
        summed = values.to(self.device, copy=True)
        distributed.all_reduce(summed)
        return summed.to(values.device)

    def all_reduce_max(self, values: list[int]) -> list[int]:
        """Element-wise maximum over ranks; every rank passes equally many numbers."""
        if self.num_ranks == 1:
            return values
        greatest = torch.tensor(values, device=self.device)
        distributed.all_reduce(greatest, distributed.ReduceOp.MAX)
        return greatest.tolist()

    def all_reduce_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over ranks; every rank passes tensors of the same shapes."""
        if self.num_ranks == 1:
            return
        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.flatten() for tensor in bucket])
            distributed.all_reduce(flat)
            for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
                tensor.copy_(part.view_as(tensor))

    def broadcast_in_place(self, tensor: Tensor) -> None:
        """Replace the values of `tensor` by those of rank 0; on every rank it has the same shape and type."""
        if self.num_ranks > 1 and tensor.numel():
            distributed.broadcast(tensor, 0)

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in the order of ranks, on every rank."""
        if self.num_ranks == 1:
            return [value]
        values: list[Any] = [None] * self.num_ranks
        distributed.all_gather_object(values, value)
        return values

    def broadcast(self, compute: Callable[[], T]) -> T:
        """The result of `compute` on rank 0, which alone calls it."""
        return cast(T, self.gather(compute() if self.rank == 0 else None)[0])

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.num_ranks > 1:
            distributed.barrier()

    def leave(self) -> None:
        """Destroy the process group, at the end of the run."""
        if self.num_ranks > 1:
            distributed.destroy_process_group()


SINGLE_RANK = Ranks(0, 1, torch.device("cpu"))
"""One process, on the CPU."""


def describe(device: torch.device, ranks: Ranks = SINGLE_RANK) -> str:
    """The device and the number of ranks in words.

    >>> describe(torch.device("cpu")).split(",")[0]
    'cpu'
    """
    one = f"{device}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    return one if ranks.num_ranks == 1 else f"{ranks.num_ranks} ranks, each {one}"


def interleaved(shares: Sequence[Sequence[T]]) -> list[T]:
    """The items of all ranks in their original order, where rank r has items r, r + num_ranks, r + 2 num_ranks, ...

    >>> interleaved([["a", "c"], ["b"]])
    ['a', 'b', 'c']
    """
    return [shares[index % len(shares)][index // len(shares)] for index in range(sum(map(len, shares)))]


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Consecutive tensors of up to BUCKET_NUMEL elements together; a larger tensor is a bucket of its own.

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
