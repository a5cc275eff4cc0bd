"""One rank of a run; `torchrun.py` starts one process of it for each rank.

    python -m percasym.launch.worker DIRECTORY

reads the resolved configuration from DIRECTORY/job.json (nothing is composed again). On failure it writes the reason there, for the
launcher to print.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from functools import partial
from pathlib import Path

from percasym.config.redaction import redact_tracebacks, redacted_output
from percasym.config.resolve import rebuild
from percasym.config.schema import ConfigError
from percasym.runs.records import write_whole
from percasym.runs.requests import Interrupted, Stopped

JOB, STOPPED = "job.json", "stopped"
FROZEN = "FrozenRankError"
"""The error of the heartbeat, by its name: its module imports torch. It is about other ranks than the one that reports it."""
DONE, FAILED = 0, 1  # DONE also for a rank that a signal stopped: with any other code the agent would end the others.
PR_SET_PDEATHSIG = 1
"""Linux's PR_SET_PDEATHSIG: the signal that a process receives when its parent dies."""


def main(directory: Path) -> int:
    """Run the job in `directory`; returns the exit code."""
    die_with_parent()
    write_whole(directory / f"rank{os.environ['RANK']}.pid", str(os.getpid()))
    share_cores()
    try:
        job = json.loads((directory / JOB).read_text(encoding="utf-8"))
        sys.path[:], sys.argv[:] = job["sys_path"], job["argv"]
        settings = rebuild(job["config"], path=Path(job["path"]))
        from percasym.app import run as app

        app.run(settings, partial(report, directory))
    except Stopped as stop:
        (directory / STOPPED).write_text(str(stop.signum), encoding="utf-8")
    except KeyboardInterrupt as stop:
        return stop.code if isinstance(stop, Interrupted) else 128 + signal.SIGINT
    except Exception as error:
        report(directory, error)
        return FAILED
    return DONE


def report(directory: Path, error: Exception) -> None:
    """Write why this rank failed, before its peers fail in a collective for lack of it."""
    rank = os.environ["RANK"]
    refused, frozen = isinstance(error, ConfigError), type(error).__name__ == FROZEN
    record = {
        "at": time.time(),
        "rank": int(rank),
        "refused": refused,
        "frozen": frozen,
        "sentence": str(error) if refused or frozen else f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }
    partial = directory / f".rank{rank}"
    partial.write_text(json.dumps(record), encoding="utf-8")
    partial.replace(directory / f"rank{rank}.json")


def share_cores() -> None:
    """Limit each rank of this machine to its share of the cores: two ranks that use all are 10x slower. Call before torch is imported."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // int(os.environ["LOCAL_WORLD_SIZE"]))))


def die_with_parent() -> None:
    """Have Linux kill this process when its parent dies: a killed launcher or study cannot end its ranks or cells itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    redact_tracebacks()
    with redacted_output():
        code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Skip the cleanup of torch.distributed, which waits for peers that may be gone.
