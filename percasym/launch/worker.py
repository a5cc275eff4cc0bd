"""One rank of a run: what `torchrun.py` starts, as often as the run has ranks.

    python -m percasym.launch.worker DIRECTORY

reads the resolved configuration from DIRECTORY/job.json (nothing is composed again) and, when something
stops it, leaves there why, for the launcher to tell.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from percasym.config.resolve import rebuild
from percasym.config.schema import ConfigError
from percasym.runs.records import write_whole
from percasym.runs.requests import Interrupted, Stopped

JOB, STOPPED = "job.json", "stopped"
DONE, FAILED = 0, 1  # A rank that stops in good order is done, too: the launcher would end the others for anything else.
PARENT_GONE = 1
"""Linux's PR_SET_PDEATHSIG: which signal a process gets when the one that started it is gone."""


def main(directory: Path) -> int:
    """Work on the job in `directory`; returns the exit code."""
    die_with_the_launcher()
    write_whole(directory / f"rank{os.environ['RANK']}.pid", str(os.getpid()))
    share_cores()
    try:
        job = json.loads((directory / JOB).read_text(encoding="utf-8"))
        sys.path[:], sys.argv[:] = job["sys_path"], job["argv"]
        settings = rebuild(job["config"], path=Path(job["path"]))
        from percasym.app import run as app

        app.run(settings)
    except Stopped as stop:
        (directory / STOPPED).write_text(str(stop.signum), encoding="utf-8")
    except KeyboardInterrupt as stop:
        return stop.code if isinstance(stop, Interrupted) else 128 + signal.SIGINT
    except Exception as error:
        report(directory, error)
        return FAILED
    return DONE


def report(directory: Path, error: Exception) -> None:
    """Leave why this rank stops, before its peers notice that it is gone and stop for want of it."""
    rank = os.environ["RANK"]
    refused = isinstance(error, ConfigError)
    record = {
        "at": time.time(),
        "rank": int(rank),
        "refused": refused,
        "sentence": str(error) if refused else f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }
    aside = directory / f".rank{rank}"
    aside.write_text(json.dumps(record), encoding="utf-8")
    aside.replace(directory / f"rank{rank}.json")


def share_cores() -> None:
    """Give each rank of this machine its part of the cores: two ranks that both use all are 10x slower. Read when torch is imported."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // int(os.environ["LOCAL_WORLD_SIZE"]))))


def die_with_the_launcher() -> None:
    """A launcher or a study that is killed has no time to end its ranks or cells, and those would go on beside those of the next."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PARENT_GONE, signal.SIGKILL)


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Without waiting for peers, who may never answer.
