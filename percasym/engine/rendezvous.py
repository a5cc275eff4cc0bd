"""Where the ranks of a run meet: a store at MASTER_ADDR:MASTER_PORT, in which each writes its host and its GPU.

Unlike `init_process_group`, which waits in silence, a rank that waits for more than 10 seconds says for whom. Ranks that would share a GPU
are refused here, before NCCL fails on them.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch.distributed import DistNetworkError, Store, TCPStore

from percasym.config.schema import ConfigError

ANNOUNCED_SECONDS = 10.0
"""How long a rank waits before it says so; then again after twice, four times, ... as long."""
JOIN_SECONDS = 1800.0
"""How long the first ranks wait for the last: a cluster may start its nodes minutes apart."""
POLL_SECONDS = 0.2

Say = Callable[[str], None]


def on_stderr(sentence: str) -> None:
    """Print a sentence at once."""
    print(sentence, file=sys.stderr, flush=True)


def meet(rank: int, num_ranks: int, device: torch.device, timeout: timedelta, say: Say = on_stderr) -> Store:
    """The store of the ranks, once all of them are there; for `init_process_group`. `timeout` is that of later calls to it.

    Rank 0 serves it, unless torchrun's agent does.
    Raises ConfigError when ranks are missing after JOIN_SECONDS, when two would share a GPU, and when the port is taken.
    """
    host, port = os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]
    if not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(f"The environment variable MASTER_PORT must be a port, got {port!r}. Unset it, or start with torchrun.")
    waiting, serves = Waiting(say), rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if not serves:
        _reach(host, int(port), waiting, f"Rank {rank} waits for {'rank 0' if rank else 'its launcher'}")
    try:
        store = TCPStore(host, int(port), num_ranks, is_master=serves, timeout=timeout, wait_for_workers=False, multi_tenant=True)
    except DistNetworkError as error:
        if "EADDRINUSE" not in str(error) and "in use" not in str(error):
            raise
        raise ConfigError(f"Port {port} (MASTER_PORT) of {host} is in use, perhaps by another run. Export another MASTER_PORT.") from error
    own = {"host": os.environ.get("SLURMD_NODENAME") or socket.gethostname(), "gpu": _gpu(device)}
    store.set(f"percasym/{rank}", json.dumps(own))
    found: dict[int, dict[str, Any]] = {}
    while True:
        for other in range(num_ranks):
            if other not in found and store.check([f"percasym/{other}"]):
                found[other] = json.loads(store.get(f"percasym/{other}"))
        if len(found) == num_ranks:
            break
        sentence = missing(num_ranks, {other: str(place["host"]) for other, place in found.items()}, os.environ)
        if waiting.over:
            raise ConfigError(f"{sentence} After {JOIN_SECONDS / 60:.0f} minutes this rank stops. Start all of them, or fewer.")
        waiting.pause(sentence if rank == 0 else None)
    _refuse_shared_gpus(found)
    return store


class Waiting:
    """Says that somebody waits: after ANNOUNCED_SECONDS, and then ever more rarely."""

    def __init__(self, say: Say) -> None:
        self._say, self._began, self._next = say, time.monotonic(), ANNOUNCED_SECONDS

    @property
    def over(self) -> bool:
        """Whether JOIN_SECONDS have passed."""
        return time.monotonic() - self._began > JOIN_SECONDS

    def pause(self, sentence: str | None) -> None:
        """Wait a moment; say `sentence` where that is due."""
        passed = time.monotonic() - self._began
        if sentence and passed >= self._next:
            self._say(sentence)
            self._next *= 2
        time.sleep(POLL_SECONDS)


def missing(num_ranks: int, found: Mapping[int, str], environment: Mapping[str, str]) -> str:
    """Who is not there yet, in a sentence; `found` maps the ranks that are to their hosts.

    Under SLURM, the nodes of the step of which no rank is there are named.

    >>> missing(4, {0: "gpu1", 1: "gpu1"}, {"SLURM_STEP_NODELIST": "gpu[1-2]"})
    'Waiting for ranks 2 and 3 of 4; ranks 0 and 1 are there (gpu1). No rank of gpu2 has arrived.'
    """
    absent = [rank for rank in range(num_ranks) if rank not in found]
    hosts = ", ".join(dict.fromkeys(found[rank] for rank in sorted(found)))
    sentence = f"Waiting for {listed(absent)} of {num_ranks}; {listed(sorted(found))} {'are' if len(found) > 1 else 'is'} there ({hosts})."
    silent = [node for node in slurm_nodes(environment.get("SLURM_STEP_NODELIST", "")) if node not in found.values()]
    return f"{sentence} No rank of {', '.join(silent[:8])} has arrived." if silent else sentence


def listed(ranks: Sequence[int]) -> str:
    """Ranks in ascending order in words.

    >>> listed([3]), listed([0, 1]), listed([0, 2, 3, 4, 5, 7])
    ('rank 3', 'ranks 0 and 1', 'ranks 0, 2 to 5 and 7')
    """
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and runs[-1][-1] == rank - 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    words = [word for run in runs for word in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]
    return f"rank{'s' * (len(ranks) > 1)} " + " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def slurm_nodes(nodelist: str) -> list[str]:
    """The nodes of one of SLURM's lists.

    >>> slurm_nodes("gpu[07-08,12],cpu1"), slurm_nodes("")
    (['gpu07', 'gpu08', 'gpu12', 'cpu1'], [])
    """
    nodes = []
    for prefix, ranges, suffix in re.findall(r"([^\[,]+)(?:\[([\d,-]+)\])?([^\[,]*)", nodelist):
        for part in ranges.split(",") if ranges else [""]:
            first, _, last = part.partition("-")
            numbers = [f"{number:0{len(first)}d}" for number in range(int(first), int(last or first) + 1)] if part else [""]
            nodes += [f"{prefix}{number}{suffix}" for number in numbers]
    return nodes


def _reach(host: str, port: int, waiting: Waiting, who: str) -> None:
    """Wait until somebody listens at this address: TCPStore would print a warning for each attempt."""
    while True:
        try:
            socket.create_connection((host, port), timeout=ANNOUNCED_SECONDS).close()
        except OSError as error:
            sentence = f"{who} at {host}:{port} (MASTER_ADDR, MASTER_PORT): {error.strerror or error}."
            if waiting.over:
                raise ConfigError(
                    f"{sentence} After {JOIN_SECONDS / 60:.0f} minutes it stops. Start all ranks with one address."
                ) from error
            waiting.pause(sentence)
        else:
            return


def _gpu(device: torch.device) -> str | None:
    """The identity of a GPU, whatever its index among the visible ones; None for a CPU."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None


def _refuse_shared_gpus(found: Mapping[int, Mapping[str, Any]]) -> None:
    users: dict[tuple[str, str], list[int]] = defaultdict(list)
    for rank, place in sorted(found.items()):
        if place["gpu"] is not None:
            users[place["host"], place["gpu"]].append(rank)
    for (host, _), ranks in users.items():
        if len(ranks) > 1:
            advice = "Start as many on each machine as it has GPUs (launch.nproc, srun's --gpus-per-task)."
            raise ConfigError(f"Each process takes a GPU, and {listed(ranks)} see one GPU of {host}. {advice}")
