"""train.py of an installed package: `percasym train task=sudoku balance=ngdiff`, or `python -m percasym.launch.train`."""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from percasym.launch.main import job, main

CONF = (Path(__file__).resolve().parents[1] / "conf").resolve()


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def train(cfg: DictConfig) -> object:
    """One run; Hydra calls this once per cell of a sweep."""
    return job(cfg, None)


if __name__ == "__main__":
    sys.exit(main(train, CONF, sys.argv[1:]))
