"""Ranks that wait for each other say for whom, and two of them never share a GPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from threading import Timer

import pytest
import torch

from percasym.config.schema import ConfigError
from percasym.engine import ranks as ranks_module
from percasym.engine import rendezvous
from percasym.engine.ranks import choose_device
from percasym.engine.rendezvous import listed, meet, missing, slurm_nodes

CPU = torch.device("cpu")
JOIN = """
import sys
import torch
from percasym.engine import rendezvous
from percasym.engine.ranks import Ranks
rendezvous.ANNOUNCED_SECONDS = 1.0
rank, num_ranks = int(sys.argv[1]), int(sys.argv[2])
sys.stdin.readline()
ranks = Ranks.join(rank, num_ranks, torch.device("cpu"))
assert ranks.gather(rank) == list(range(num_ranks))
torch.distributed.destroy_process_group()  # An open group of gloo may abort the interpreter at its end.
"""
"""A rank that joins when it receives a line."""


def free_port() -> int:
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def joined(num_ranks: int, late: int, until: tuple[int, str]) -> list[str]:
    """The stderr of so many ranks; rank `late` joins when the rank of `until` has written a line with the text of `until`."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("TORCHELASTIC", "SLURM"))}
    environment = outside | {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", JOIN, str(rank), str(num_ranks)], env=environment, cwd=Path(__file__).parents[3],
                         stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
        for rank in range(num_ranks)
    ]  # fmt: skip
    waiting, text = until
    read = ""
    impatient = Timer(90, lambda: [process.kill() for process in processes])  # A line that never comes ends the test all the same.
    impatient.daemon = True
    impatient.start()
    for rank in [*(rank for rank in range(num_ranks) if rank != late), late]:
        if rank == late:
            while text not in read:
                line = processes[waiting].stderr.readline()
                assert line, f"rank {waiting} ended without {text!r}: {read}"
                read += line
        processes[rank].stdin.write("join\n")
    said = [process.communicate(timeout=120)[1] for process in processes]
    impatient.cancel()
    said[waiting] = read + said[waiting]
    assert [process.returncode for process in processes] == [0] * num_ranks, said
    return said


def test_rank_0_says_which_ranks_are_missing() -> None:
    here = socket.gethostname()
    sentence = f"Waiting for rank 2 of 3; ranks 0 and 1 are there ({here}).\n"
    first, second, third = joined(3, late=2, until=(0, sentence))
    assert sentence in first
    assert "Waiting" not in second + third


def test_other_ranks_say_that_rank_0_is_missing_and_where() -> None:
    first, second = joined(2, late=0, until=(1, "Rank 1 waits"))
    assert second.startswith("Rank 1 waits for rank 0 at localhost:")
    assert second.splitlines()[0].endswith(" (MASTER_ADDR, MASTER_PORT): Connection refused.")
    assert "waits" not in first


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Rank 0 of two, whose peer never comes: what it says, in a list."""
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    monkeypatch.setattr(rendezvous, "ANNOUNCED_SECONDS", 0.3)
    monkeypatch.setattr(rendezvous, "JOIN_SECONDS", 1.5)
    return []


def test_a_rank_does_not_wait_for_ever(alone: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_STEP_NODELIST", "gpu[1-2]")
    monkeypatch.setenv("SLURMD_NODENAME", "gpu1")
    expected = "Waiting for rank 1 of 2; rank 0 is there (gpu1). No rank of gpu2 has arrived."
    with pytest.raises(ConfigError) as stopped:
        meet(0, 2, CPU, timedelta(seconds=5), alone.append)
    assert str(stopped.value).startswith(f"{expected} After 0 minutes this rank stops.")
    assert 2 <= len(alone) <= 3, "after 0.3 seconds, 0.6 and 1.2"
    assert set(alone) == {expected}


def test_a_rank_whose_rank_0_never_listens_does_not_wait_for_ever(alone: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"Rank 1 waits for rank 0 at localhost:\d+ .*Connection refused\. After 0 minutes it stops"):
        meet(1, 2, CPU, timedelta(seconds=5), alone.append)
    assert alone


def test_a_port_in_use_is_named(alone: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("MASTER_PORT", str(port))
        with pytest.raises(ConfigError, match=rf"Port {port} \(MASTER_PORT\) of localhost is in use"):
            meet(0, 2, CPU, timedelta(seconds=5), alone.append)


@pytest.mark.parametrize("port", ["", "70000", "ssh"])
def test_a_port_that_is_none_is_one_sentence(alone: list[str], monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    monkeypatch.setenv("MASTER_PORT", port)
    with pytest.raises(ConfigError, match="MASTER_PORT must be a port, got"):
        meet(0, 2, CPU, timedelta(seconds=5), alone.append)


def test_ranks_that_see_one_gpu_are_refused() -> None:
    one, other = {"host": "a", "gpu": "GPU-1"}, {"host": "a", "gpu": "GPU-2"}
    rendezvous._refuse_shared_gpus({0: one, 1: other, 2: {"host": "b", "gpu": "GPU-1"}})
    rendezvous._refuse_shared_gpus({rank: {"host": "a", "gpu": None} for rank in range(3)})
    with pytest.raises(ConfigError, match=r"Each process takes a GPU, and ranks 1 to 3 see one GPU of a\. Start as many"):
        rendezvous._refuse_shared_gpus({0: other, 1: one, 2: one, 3: one})


class Gpus:
    """torch.cuda of a machine on which so many GPUs are visible."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, visible: int) -> None:
        self.chosen: list[int] = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
        monkeypatch.setattr(torch.cuda, "set_device", self.chosen.append)


def test_a_task_of_srun_that_sees_one_gpu_takes_it_whatever_its_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = Gpus(monkeypatch, visible=1)
    assert choose_device(3) == torch.device("cuda", 0)
    assert gpus.chosen == [0]


def test_a_rank_that_sees_several_gpus_takes_its_own_and_is_refused_beyond_them(monkeypatch: pytest.MonkeyPatch) -> None:
    Gpus(monkeypatch, visible=4)
    assert choose_device(3) == torch.device("cuda", 3)
    with pytest.raises(ConfigError, match="process 4 of this machine sees 4"):
        choose_device(4)


def test_deepspeed_reads_the_index_of_the_chosen_gpu_and_not_the_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    from percasym.engine.deepspeed import _local_rank

    monkeypatch.setenv("LOCAL_RANK", "3")
    with _local_rank(torch.device("cuda", 0), stay=False):
        assert os.environ["LOCAL_RANK"] == "0"
    assert os.environ["LOCAL_RANK"] == "3"
    with _local_rank(CPU, stay=False):
        assert os.environ["LOCAL_RANK"] == "3"
    monkeypatch.delenv("LOCAL_RANK")
    with _local_rank(CPU, stay=False):
        assert os.environ["LOCAL_RANK"] == "0"
    assert "LOCAL_RANK" not in os.environ


def test_lists_of_ranks_and_nodes() -> None:
    assert listed([0, 2, 3, 4, 5, 7, 8]) == "ranks 0, 2 to 5, 7 and 8"
    assert slurm_nodes("gpu[098-101,7],x[1]y,login") == ["gpu098", "gpu099", "gpu100", "gpu101", "gpu7", "x1y", "login"]
    assert missing(3, {0: "a"}, {}) == "Waiting for ranks 1 and 2 of 3; rank 0 is there (a)."


def test_the_process_group_uses_the_store_in_which_the_ranks_met(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second store at the same address would be another wait in silence."""
    given, store = {}, torch.distributed.HashStore()
    store.set("default_pg/met", "here")
    monkeypatch.setattr(ranks_module, "meet", lambda *words: store)
    monkeypatch.setattr(ranks_module.distributed, "is_initialized", lambda: False)  # An engine's test may have left a group of one.
    monkeypatch.setattr(ranks_module.distributed, "init_process_group", lambda backend, **options: given.update(options))
    assert ranks_module.Ranks.join(1, 2, CPU).store is store
    assert (given["store"].get("met"), given["rank"], given["world_size"]) == (b"here", 1, 2)
