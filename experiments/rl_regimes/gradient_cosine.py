"""How alike the gradients of several rounds of RL are at the start: the mean cosine between two of them.

    python experiments/rl_regimes/gradient_cosine.py multirun/cosine paradigm.batch_size=64 task.givens=[11,13]     (words as for train.py)

The run makes its rounds, but every update is withheld, so all rounds are of the same model on prompts of their own. A gradient is that of
the trained parameters after the whole round, not clipped. Consecutive rounds are summed in pairs, too: rounds of twice as many prompts.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import combinations
from pathlib import Path
from statistics import fmean, stdev

import torch

from percasym.engine.torch import WholeUpdater
from percasym.launch.main import main as launch

ROOT = Path(__file__).resolve().parents[2]


def cosines(gradients: list[torch.Tensor]) -> dict[str, float]:
    """Mean, standard deviation and number of the cosines of all pairs."""
    units = [gradient / gradient.norm() for gradient in gradients]
    found = [float(one @ other) for one, other in combinations(units, 2)]
    return {"mean": fmean(found), "std": stdev(found) if len(found) > 1 else 0.0, "pairs": len(found)}


def main() -> int:
    """Run the rounds and print the cosines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, help="directory of the run")
    parser.add_argument("--rounds", type=int, default=4)
    asked, words = parser.parse_known_args()
    gradients: list[torch.Tensor] = []

    def withhold(updater: WholeUpdater, lr: float) -> None:
        kept = [parameter.grad.flatten() for parameter in updater._trained if parameter.grad is not None]
        gradients.append(torch.cat(kept).double())
        updater._clear()

    WholeUpdater.apply = withhold  # type: ignore[method-assign]
    sys.argv = [str(ROOT / "train.py")]
    import train

    own = ["paradigm=rl", f"paradigm.steps={asked.rounds}", "paradigm.max_grad_norm=0", "evaluation.num_samples=2"]
    given = [f"hydra.run.dir={asked.out}", *own, *words]
    code = launch(train.train, ROOT / "conf", given)
    if code:
        return code
    found = {"rounds": cosines(gradients)}
    if len(gradients) >= 4:
        found["two rounds as one"] = cosines([one + other for one, other in zip(gradients[::2], gradients[1::2], strict=False)])
    (asked.out / "cosine.json").write_text(json.dumps({"words": words, **found}, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
