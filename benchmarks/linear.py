"""A linear layer through oneDNN beside the library's own, forward and backward, in float32 on one thread.

    python benchmarks/linear.py                  the shapes of the packaged models, 9 rounds: half a minute

Rounds alternate between the two; a ratio is the median over rounds of processor seconds, and below 1 oneDNN is faster: on AMD processors,
where MKL, the library's own, uses half of the vector width. On Intel's it is slower at 128 rows (linear_intel.json) and not used
(`onednn.FASTER`).
"""

from __future__ import annotations

import argparse
import json
import time
from copy import deepcopy
from pathlib import Path
from statistics import median

import torch
from torch import nn

from percasym.objectives import onednn
from percasym.objectives.onednn import OneDnnLinear

RESULT = Path(__file__).parent / "results" / "linear.json"
SHAPES = {"attention": (128, 128), "feed-forward, up": (128, 384), "feed-forward, down": (384, 128)}
ROWS = (32, 128, 2048, 8192)
FLOPS = 2e9
"""Operations of a round, so that small shapes are repeated often enough to be timed."""


def seconds(layer: nn.Module, states: torch.Tensor, times: int) -> float:
    """Processor seconds of `times` forward and backward passes."""
    began = time.process_time()
    for _ in range(times):
        layer(states).sum().backward()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    onednn.FASTER = onednn.AVAILABLE  # Measured on any processor.
    results = {}
    for name, (width, outputs) in SHAPES.items():
        plain = nn.Linear(width, outputs, bias=False)
        fast = deepcopy(plain)
        fast.__class__ = OneDnnLinear
        for rows in ROWS:
            states = torch.randn(rows, width, requires_grad=True)
            times = max(1, round(FLOPS / (6 * rows * width * outputs)))
            for layer in (plain, fast):
                seconds(layer, states, 2)
            pairs = [(seconds(plain, states, times), seconds(fast, states, times)) for _ in range(asked.rounds)]
            ratios = sorted(ours / theirs for theirs, ours in pairs)
            found = {"ratio": median(ratios), "lowest": ratios[0], "highest": ratios[-1]}
            results[f"{name}, {rows} rows"] = found
            print(f"{name:<20} {rows:>5} rows: {found['ratio']:.2f} ({found['lowest']:.2f} to {found['highest']:.2f})", flush=True)
    asked.out.parent.mkdir(exist_ok=True)
    asked.out.write_text(json.dumps({"asked": {"rounds": asked.rounds}, "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
