"""One table of what the other benchmarks found last: each figure, its spread, and the aim it was measured for.

python benchmarks/table.py     (the last file of `make bench`)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table."""

    what: str
    file: str
    """The result it is read from."""
    found: Callable[[Any], tuple[float, float, float]]
    """Median, least and greatest."""
    aim: str = ""
    """Empty for a figure without an aim."""


def sft(case: str, pair: str) -> Callable[[Any], tuple[float, float, float]]:
    def found(result: Any) -> tuple[float, float, float]:
        ratio = result["cases"][case]["ratios"][pair]
        return ratio["median"], ratio["low"], ratio["high"]

    return found


def rollouts(case: str) -> Callable[[Any], tuple[float, float, float]]:
    return lambda result: spread(result["results"][case])


def seconds(case: str) -> Callable[[Any], tuple[float, float, float]]:
    def found(result: Any) -> tuple[float, float, float]:
        one = result["results"][case]
        return one["seconds"], one["lowest"], one["highest"]

    return found


def loss_seconds(arm: str) -> Callable[[Any], tuple[float, float, float]]:
    def found(result: Any) -> tuple[float, float, float]:
        ratios = [one[arm]["seconds"] / one["naive"]["seconds"] for one in result["rounds"]]
        return median(ratios), min(ratios), max(ratios)

    return found


def rows(case: str) -> Callable[[Any], tuple[float, float, float]]:
    def found(result: Any) -> tuple[float, float, float]:
        one = result["results"][case]
        rates = [one["rows"] / each / 1000 for each in one["seconds"]]
        return median(rates), min(rates), max(rates)

    return found


def spread(one: Any) -> tuple[float, float, float]:
    return one["ratio"], one["lowest"], one["highest"]


def bytes_ratio(result: Any) -> tuple[float, float, float]:
    return (result["bytes_ratio"],) * 3


FIGURES = [
    Figure(what="SFT step / Trainer, ragged", file="sft_step", found=sft("tiny", "none / trainer"), aim="<= 0.75"),
    Figure(what="SFT step / Trainer, half short", file="sft_step", found=sft("ragged", "none / trainer"), aim="<= 0.75"),
    Figure(what="ngdiff / fixed, scale=tiny", file="sft_step", found=sft("tiny", "ngdiff / fixed"), aim="<= 1.30"),
    Figure(what="ngdiff / fixed, 2.5 % perception", file="sft_step", found=sft("2.5 %", "ngdiff / fixed"), aim="<= 1.10"),
    Figure(what="BalancedTrainer none / Trainer", file="trainer_step", found=sft("scale=tiny", "none / trainer")),
    Figure(what="BalancedTrainer ngdiff / Trainer", file="trainer_step", found=sft("scale=tiny", "ngdiff / trainer"), aim="<= 1.15"),
    Figure(what="  2.6 % perception", file="trainer_step", found=sft("2.6 % perception", "ngdiff / trainer"), aim="<= 1.15"),
    Figure(what="two backward passes / fixed", file="sft_step", found=sft("2.5 %", "naive / fixed")),
    Figure(what="linear layer, oneDNN / PyTorch's own", file="linear", found=rollouts("feed-forward, up, 2048 rows")),
    Figure(what="loss / naive, bytes", file="loss_memory_128", found=bytes_ratio, aim="<= 0.125"),
    Figure(what="loss / naive, time, width 128", file="loss_memory_128", found=loss_seconds("ours"), aim="<= 1.1"),
    Figure(what="loss / naive, time, width 1,024", file="loss_memory_1024", found=loss_seconds("ours"), aim="<= 1.1"),
    Figure(what="  weights known afterwards", file="loss_memory_1024", found=loss_seconds("afterwards")),
    Figure(what="generate / rollouts, Qwen3-VL", file="rollouts", found=rollouts("Qwen3VL, own ends"), aim=">= 2"),
    Figure(what="generate / rollouts, InternVL3.5", file="rollouts", found=rollouts("InternVL35, own ends"), aim=">= 2"),
    Figure(what="generate / evaluation, 64 samples", file="evaluation_64", found=spread, aim=">= 2"),
    Figure(what="generate / evaluation, 256 samples", file="evaluation_256", found=spread, aim=">= 2"),
    Figure(what="rows checked, 1,000/s, PNG", file="rows", found=rows("PNG, 224 x 224")),
    Figure(what="rows checked, 1,000/s, photos", file="rows", found=rows("JPEG, 1024 x 768")),
    Figure(what="import percasym, s", file="startup", found=seconds("import"), aim="<= 0.1"),
    Figure(what="--cfg job, s", file="startup", found=seconds("--cfg job"), aim="<= 1.0"),
    Figure(what="command to first step, s", file="startup", found=seconds("first step"), aim="<= 8"),
]


def main() -> None:
    print(f"{'':<36}{'median':>8}  {'least to greatest':<18}aim")
    for figure in FIGURES:
        path = RESULTS / f"{figure.file}.json"
        if path.exists():
            middle, least, greatest = figure.found(json.loads(path.read_text(encoding="utf-8")))
            print(f"{figure.what:<36}{middle:>8.3f}  {f'{least:.3f} to {greatest:.3f}':<18}{figure.aim}".rstrip())
        else:
            print(f"{figure.what:<36}{'not measured':>8}")


if __name__ == "__main__":
    main()
