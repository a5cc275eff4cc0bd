"""A SLURM of one node on this machine, in a temporary folder, started and ended with the tests; by hand:

    python tests/slurm/cluster.py          # prints SLURM_CONF and waits for Ctrl-C

Needs slurmctld, slurmd and munged (Debian: slurm-wlm and munge), all of which run as the calling user. No accounting, no cgroups.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "srun", "sbatch", "scancel", "scontrol", "squeue", "sinfo")
CONF = """
ClusterName=percasym
SlurmctldHost={host}
SlurmctldPort={ctld_port}
SlurmdPort={slurmd_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=15
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=5
ReturnToService=2
NodeName={host} CPUs={num_cpus} RealMemory={memory_mb} State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""
"""OverSubscribe: two tasks run on a machine with one core, too."""


def missing_programs() -> list[str]:
    """The programs of SLURM that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=search_path()) is None]


def search_path() -> str:
    """PATH with the folders of daemons, which an ordinary user's may lack."""
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


@contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """The environment in which srun, sbatch and their kind talk to the cluster, for as long as the block runs."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))  # A short path: that of a socket has at most 107 letters.
    folder.chmod(0o755)
    conf, key = folder / "slurm.conf", folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    conf.write_text(
        CONF.format(
            host=socket.gethostname(), user=getpass.getuser(), folder=folder, ctld_port=free_port(), slurmd_port=free_port(),
            num_cpus=os.cpu_count(), memory_mb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20 - 64,
        )
    )  # fmt: skip
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    environment = outside | {"SLURM_CONF": str(conf), "PATH": search_path()}
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    munge = [f"--{option}={folder}/munge.{name}" for option, name in files.items()]
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for command in (["munged", "--foreground", "--force", *munge], ["slurmctld", "-D", "-f", conf], ["slurmd", "-D", "-f", conf]):
            with (folder / f"{command[0]}.log").open("wb") as log:
                daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True))
        wait_until_idle(environment, folder, daemons)
        yield environment
    finally:
        subprocess.run(["scancel", "--user", getpass.getuser()], env=environment, check=False, capture_output=True)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in reversed(daemons):
            try:
                daemon.wait(timeout=30)
            except subprocess.TimeoutExpired:
                daemon.kill()
        shutil.rmtree(folder, ignore_errors=True)


def wait_until_idle(environment: dict[str, str], folder: Path, daemons: list[subprocess.Popen[bytes]], seconds: float = 60) -> None:
    """Wait until the node takes jobs. Raises RuntimeError with the logs when it does not."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and all(daemon.poll() is None for daemon in daemons):
        found = subprocess.run(["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True, check=False)
        if found.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    logs = "\n".join(f"{log.name}:\n{log.read_text(errors='replace')[-3000:]}" for log in sorted(folder.glob("*.log")))
    raise RuntimeError(f"SLURM did not start:\n{logs}")


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.create_server(("", 0)) as server:
        return int(server.getsockname()[1])


if __name__ == "__main__":
    with cluster() as found:
        print(f"export SLURM_CONF={found['SLURM_CONF']}", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
