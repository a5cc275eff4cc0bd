"""One rank of a run: what `torchrun.py` starts, as often as the run has ranks.

    python -m percasym.worker DIRECTORY

reads the resolved configuration from DIRECTORY/job.json (nothing is composed again) and, when something
stops it, leaves there why, for the launcher to tell.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from percasym.config import rebuild
from percasym.schema import ConfigError

JOB = "job.json"
DONE, FAILED, INTERRUPTED = 0, 1, 130  # What the launcher says to the user rests on the reports, not on these.


def main(directory: Path) -> int:
    """Work on the job in `directory`; returns the exit code."""
    signal.signal(signal.SIGINT, _interrupt_once)
    share_cores()
    try:
        job = json.loads((directory / JOB).read_text(encoding="utf-8"))
        sys.path[:], sys.argv[:] = job["sys_path"], job["argv"]
        settings = rebuild(job["config"], path=Path(job["path"]))
        from percasym import app

        app.run(settings)
    except KeyboardInterrupt:
        return INTERRUPTED
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


def _interrupt_once(signum: int, frame: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A second one would cut short what the first one has to leave in order.
    raise KeyboardInterrupt


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # Without waiting for peers, who may never answer.
