"""The device of this process: chosen once, from what the machine has."""

from __future__ import annotations

import os

import torch

from percasym.config.schema import ConfigError
from percasym.engine.ranks import ALONE, Ranks


def choose_device(local_rank: int = 0) -> torch.device:
    """The accelerator of this rank where there are any; on a CPU, no more threads than this process may use."""
    if torch.cuda.is_available():
        if local_rank >= torch.cuda.device_count():
            raise ConfigError(f"Each process takes a GPU, and this machine has {torch.cuda.device_count()}. Lower launch.nproc to that.")
        torch.cuda.set_device(local_rank)
        return torch.device("cuda", local_rank)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(min(torch.get_num_threads(), usable))  # More threads than cores are 10x slower.
    os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed looks for an accelerator at import and warns when there is none.
    return torch.device("cpu")


def describe(device: torch.device, ranks: Ranks = ALONE) -> str:
    """The device in words.

    >>> describe(torch.device("cpu")).split(",")[0]
    'cpu'
    """
    one = f"{device}, {torch.cuda.get_device_name(device)}" if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    return one if ranks.num_ranks == 1 else f"{ranks.num_ranks} ranks, each {one}"
