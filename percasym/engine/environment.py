"""Which rank this process is, as whoever started it says: our own launcher, torchrun, or SLURM."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from percasym.config.schema import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class RankEnvironment:
    """The place of a process among those that share its run."""

    rank: int = 0
    num_ranks: int = 1
    local_rank: int = 0
    """Its number on this machine: which accelerator is its own."""


def world(environment: Mapping[str, str]) -> RankEnvironment:
    """The place that environment variables give; alone where they say nothing.

    >>> world({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"})
    RankEnvironment(rank=5, num_ranks=8, local_rank=1)
    >>> world({})
    RankEnvironment(rank=0, num_ranks=1, local_rank=0)

    Raises ConfigError when SLURM started several tasks and nothing says where they meet.
    """
    if "WORLD_SIZE" in environment:
        return RankEnvironment(
            rank=int(environment.get("RANK", "0")),
            num_ranks=int(environment["WORLD_SIZE"]),
            local_rank=int(environment.get("LOCAL_RANK", "0")),
        )
    tasks = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))  # Of this srun; SLURM_NTASKS would be that of the whole job.
    if tasks == 1:
        return RankEnvironment()
    if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in environment]:
        raise ConfigError(f"srun started {tasks} tasks, and {missing[0]} is not set. Export MASTER_ADDR (the first node) and MASTER_PORT.")
    return RankEnvironment(rank=int(environment["SLURM_PROCID"]), num_ranks=tasks, local_rank=int(environment["SLURM_LOCALID"]))
