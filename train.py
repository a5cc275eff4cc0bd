"""Train a vision-language model with one weight per response span.

python train.py task=sudoku model=qwen3vl paradigm=sft balance=ngdiff
python train.py --help
"""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from percasym.launch.main import job, main

SCRIPT = Path(__file__).resolve()
CONF = SCRIPT.parent / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def train(cfg: DictConfig) -> object:
    """One run; Hydra calls this once per cell of a sweep."""
    return job(cfg, SCRIPT)


if __name__ == "__main__":
    sys.exit(main(train, CONF, sys.argv[1:]))
