"""A training step whose linear layers multiply in bfloat16 (engine.cpu_matmul=bfloat16) beside one in float32, on one thread of a CPU.

    python benchmarks/cpu_matmul.py                both packaged families, 8 rounds: a minute
    python benchmarks/cpu_matmul.py --rounds 2     a quick look

A round makes the step of the same 16 demonstrations of Sudoku in both formats, each with its own copy of the model; a ratio is the median
over rounds of processor seconds, and below 1 bfloat16 is faster. Losses are those of the last round, after as many updates.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median

import torch

from percasym.config.resolve import composed
from percasym.config.settings import TorchSettings, WeightType
from percasym.data.generated import Generated
from percasym.engine.engine import SpanEngine
from percasym.engine.torch import torch_engine
from percasym.models.base import Batch
from percasym.objectives.coefficients import coefficients, span_counts
from percasym.types import Span

CONF = Path(__file__).parents[1] / "conf"
RESULT = Path(__file__).parent / "results" / "cpu_matmul.json"
FORMATS: tuple[WeightType, ...] = ("float32", "bfloat16")
WEIGHTS = {Span.perception: 0.03, Span.reasoning: 0.97}
"""About those of balance=none."""


def step(engine: SpanEngine, batches: list[Batch], lr: float) -> tuple[float, float]:
    """Processor seconds and loss of one step."""
    began, total = time.process_time(), 0.0
    perception, reasoning = span_counts([batch.labels for batch in batches]).tolist()
    for batch in batches:
        loss, _ = engine.loss(batch, coefficients(batch.labels, WEIGHTS, (perception, reasoning)))
        engine.backward(loss)
        total += float(loss)
    engine.step(lr)
    return time.process_time() - began, total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for name in ("internvl35", "qwen3vl"):
        settings = composed(["task=sudoku", f"model={name}"], CONF)
        data = Generated(
            task=settings.task, family=settings.family, batch_size=16, micro_batch_size=16, seed=0, split="train_sft", ahead=False
        )
        engines = {
            kind: torch_engine(
                settings.family.load(), settings=TorchSettings(cpu_matmul=kind), paradigm=settings.paradigm, device=torch.device("cpu")
            )
            for kind in FORMATS
        }
        ratios, losses = [], {}
        for number in range(asked.rounds + 1):
            batches = list(data.window(number))
            found = {kind: step(engine, batches, settings.paradigm.lr) for kind, engine in engines.items()}
            losses = {kind: loss for kind, (_, loss) in found.items()}
            if number:  # The first round warms up.
                ratios.append(found["bfloat16"][0] / found["float32"][0])
        results[name] = {"ratio": median(ratios), "lowest": min(ratios), "highest": max(ratios), "losses": losses}
        print(f"{name}: {results[name]['ratio']:.2f} ({min(ratios):.2f} to {max(ratios):.2f}); losses {losses}", flush=True)
    RESULT.write_text(json.dumps({"asked": vars(asked), "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
