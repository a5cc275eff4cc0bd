"""Tokens a second of an SFT step as work grows: longer rows, more rows, two ranks.

    python benchmarks/scaling.py        writes docs/figures/scaling.png

The packaged Qwen3-VL on text alone, every token supervised; forward, backward and update. One thread a rank; a second is one of the
processor, so that other processes disturb little; with two ranks also one of the clock, which has the waiting for each other.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "scaling.json"
FIGURE = ROOT / "docs" / "figures" / "scaling.png"
LENGTHS = [2**n for n in range(8, 14)]
ROWS = [2**n for n in range(7)]
LENGTH, SHARE = 256, 8  # Tokens of a row where rows grow; rows of each rank.


def rates(shapes: list[tuple[int, int]]) -> list[dict[str, float]]:
    """Tokens a second, by processor and by clock, of this rank's steps on (rows, tokens); the best of 3, 2 for long ones."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    import torch
    import transformers

    from percasym.config.paradigm import Sft
    from percasym.config.settings import TorchSettings
    from percasym.engine.ranks import Ranks
    from percasym.engine.torch import torch_engine
    from percasym.models.base import Batch
    from percasym.models.qwen3vl import Qwen3VL
    from percasym.training.span_gradients import backward
    from percasym.types import Span

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    cpu, sft = torch.device("cpu"), Sft(steps=1, batch_size=1, micro_batch_size=1, lr=1e-4)
    ranks = Ranks.join(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")), cpu)
    engine = torch_engine(Qwen3VL().load(), settings=TorchSettings(), paradigm=sft, device=cpu, ranks=ranks)
    found = []
    for rows, tokens in [(1, 64), *shapes]:  # The first warms up.
        ids = torch.randint(100, 800, (rows, tokens))
        labels = torch.full_like(ids, Span.reasoning)
        labels[:, 0] = -1
        batch = Batch(ids=ids, mask=torch.ones_like(ids), labels=labels, aligned={"position_ids": torch.arange(tokens).expand(3, rows, -1)})
        spent = []
        for _ in range(3 if rows * tokens < 4096 else 2):
            ranks.barrier()
            began = time.process_time(), time.perf_counter()
            backward(engine, [batch], {Span.reasoning: 1.0}, (0, rows * (tokens - 1) * ranks.num_ranks))
            engine.step(1e-4)
            spent.append((time.process_time() - began[0], time.perf_counter() - began[1]))
        cpu_seconds, clock = (min(column) for column in zip(*spent, strict=True))
        found.append({"rows": rows, "tokens": tokens, "per_cpu_second": rows * tokens / cpu_seconds, "per_second": rows * tokens / clock})
    ranks.leave()
    return found[1:]


def on_ranks(number: int) -> dict[str, float]:
    """The step of several ranks, each with rows of its own: tokens of all of them a second."""
    with tempfile.TemporaryDirectory() as folder:
        ranks = ["torch.distributed.run", f"--nproc-per-node={number}", "--standalone"]
        command = [sys.executable, "-m", *ranks, __file__, "--one-rank", folder]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        each = [json.loads((Path(folder) / f"{rank}.json").read_text())[0] for rank in range(number)]
    return {
        "ranks": number,
        "per_cpu_second": sum(one["per_cpu_second"] for one in each) / number,
        "per_second": sum(one["per_second"] for one in each),
    }


def draw(report: dict) -> None:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(10, 3), layout="constrained")
    titles = ("one row, longer", f"rows of {LENGTH} tokens", f"ranks, {SHARE} rows of {LENGTH} tokens each")
    for panel, name, axis, title in zip(panels, ("lengths", "rows", "ranks"), ("tokens", "rows", "ranks"), titles, strict=True):
        x = [one[axis] for one in report[name]]
        panel.plot(x, [one["per_cpu_second"] for one in report[name]], marker="o", label="a processor second")
        if name == "ranks":
            panel.plot(x, [one["per_second"] for one in report[name]], marker="o", label="a second")
            panel.legend(frameon=False)
        panel.set_xscale("log", base=2)
        panel.set_xticks(x, [f"{value:,}" for value in x], fontsize=8)
        panel.set_ylim(bottom=0)
        panel.set_title(title, fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("tokens a processor second")
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=90)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--one-rank", type=Path, metavar="FOLDER", help="measure the share of this rank and write it there")
    if folder := arguments.parse_args().one_rank:
        (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(rates([(SHARE, LENGTH)])))
        return
    shapes = [(1, length) for length in LENGTHS] + [(rows, LENGTH) for rows in ROWS]
    found = rates(shapes)
    report = {"lengths": found[: len(LENGTHS)], "rows": found[len(LENGTHS) :], "ranks": [on_ranks(number) for number in (1, 2)]}
    for name, curve in report.items():
        for one in curve:
            rest = ", ".join(f"{key} {value:,.0f}" for key, value in one.items())
            print(f"{name:>8}: {rest}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    draw(report)


if __name__ == "__main__":
    main()
