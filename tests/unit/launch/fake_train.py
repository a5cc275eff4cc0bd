"""train.py without training: the weight decides how a cell ends. Everything around it is real."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import hydra
from omegaconf import DictConfig

from percasym.config.schema import ConfigError
from percasym.config.settings import Settings
from percasym.launch import main as launch
from percasym.runs.lock import sole_writer
from percasym.runs.rundir import RunDirectory
from percasym.types import Estimate

METRICS = ("end_to_end", "perception", "reasoning")
SCRIPT = Path(__file__).resolve()
CONF = SCRIPT.parents[3] / "conf"


def work(settings: Settings) -> None:
    weight = getattr(settings.balance, "weight", None)
    if weight == 0.2:
        sys.exit(3)
    with sole_writer(settings.path):
        end_by_weight(RunDirectory.open(settings.path, settings.record, settings.run.overwrite), settings, weight)


def end_by_weight(run: RunDirectory, settings: Settings, weight: float | None) -> None:
    with Path("begun.txt").open("a") as file:
        threads = os.environ.get("OMP_NUM_THREADS")
        file.write(f"{settings.path.parent.name} {settings.seed} {os.getpid()} {'torch' in sys.modules} {threads}\n")
    if weight == 0.3:
        raise ZeroDivisionError("a defect")
    if weight == 0.4:
        os.kill(os.getpid(), signal.SIGKILL)
    if weight == 0.6:
        raise ConfigError("there is no such checkpoint.")
    try:
        while weight == 0.7 and not Path("go_on").exists():
            time.sleep(0.02)
    except KeyboardInterrupt:
        time.sleep(0.5)  # A step that is finished first.
        run.interrupted()
        Path("ended_in_order.txt").touch()
        raise
    run.finish(results(run, weight or 0.0))


def results(run: RunDirectory, weight: float) -> dict[str, object]:
    """Four samples before and after training: every cell answers all of them in the end, and perceives the share given by its weight."""
    after = [{"end_to_end": True, "reasoning": True, "perception": index < 4 * weight} for index in range(4)]
    for step, grades in ((0, [dict.fromkeys(METRICS, False)] * 4), (4, after)):
        keys = [{"task": "sudoku", "split": "test", "seed": 0, "index": index} for index in range(4)]
        run.samples("test", step, [{"key": k, "truth": str(k["index"]), "grades": g} for k, g in zip(keys, grades, strict=True)])
    nothing, right = (Estimate(mean=mean, ci95=(mean, mean), n=4) for mean in (0.0, 1.0))
    return {part: dict.fromkeys(METRICS, one) for part, one in (("before", nothing), ("after", right), ("gain", right))}


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def train(cfg: DictConfig) -> object:
    return launch.job(cfg, SCRIPT)


if __name__ == "__main__":  # Not where pytest merely imports this file, in search of doctests.
    launch.start = work
    sys.exit(launch.main(train, CONF, sys.argv[1:]))
