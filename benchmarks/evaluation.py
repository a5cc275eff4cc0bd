"""An evaluation, all three metrics, beside the same one whose answers come from `model.generate`.

    python benchmarks/evaluation.py                            64 samples, 3 pairs: two minutes on a free core
    python benchmarks/evaluation.py --samples 256 --pairs 1    as large as a final one

The packaged Qwen3-VL on Sudoku, as `scale=tiny` evaluates it, one thread. Samples, prompts and grading are the same; the library answers
the three kinds of prompts in three rounds of batches, sorted by length and padded on the left. Ratios above 1 mean that ours is faster;
they are of processor seconds, which other processes disturb less than the clock (shown beside them). Not every answer is equal token for
token: padding and company move the last bits of a logit, and two likeliest tokens may be that close.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

os.environ["DS_ACCELERATOR"] = "cpu"  # Before transformers, which imports DeepSpeed where it finds it.

import torch
from transformers import PreTrainedModel

from percasym.config.settings import Evaluation
from percasym.models.base import Family, Row
from percasym.models.checkpoint import silence_transformers
from percasym.models.qwen3vl import Qwen3VL
from percasym.rollout import native
from percasym.tasks.sudoku.task import Sudoku
from percasym.training import evaluate as evaluation
from percasym.types import Completion

RESULTS = Path(__file__).parent / "results"
TASK = Sudoku(size=4, givens=(8, 10), verbosity=2, restate=True)


def generated(
    model: PreTrainedModel, family: Family, rows: Sequence[Row], branches: Sequence[Sequence[Sequence[int]]],
    *, max_new_tokens: int, batch_size: int, advance: Callable[[int], None],
) -> list[list[Completion]]:  # fmt: skip
    """What `decode_branches` gives, by the library: each branch is a round of its own, each of its rows a prompt of its own."""
    answers: list[list[Completion]] = [[] for _ in rows]
    for branch in range(len(branches[0])):
        prompts = [(*row.ids, *branches[i][branch]) for i, row in enumerate(rows)]
        order = sorted(range(len(rows)), key=lambda i: len(prompts[i]))
        said: dict[int, Completion] = {}
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            said |= zip(chosen, batch(model, family, [rows[i] for i in chosen], [prompts[i] for i in chosen], max_new_tokens), strict=True)
        for i, given in enumerate(answers):
            given.append(said[i])
    return answers


@torch.inference_mode()
def batch(model: Any, family: Family, rows: Sequence[Row], prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[Completion]:
    """Greedy answers to prompts padded on the left."""
    width, end = max(map(len, prompts)), family.codec().end
    ids = torch.tensor([[end] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    inputs = family.collate(rows).inputs
    types = {"mm_token_type_ids": (ids == model.config.image_token_id).int()} if inputs else {}
    said = model.generate(
        input_ids=ids, attention_mask=mask, **inputs, **types, max_new_tokens=max_new_tokens, do_sample=False,
        eos_token_id=end, pad_token_id=end, suppress_tokens=family.codec().banned,
    )[:, width:].tolist()  # fmt: skip
    cut = [one[: one.index(end) + 1] if end in one else one for one in said]
    return [Completion(ids=tuple(one), logprobs=None, finished=one[-1] == end) for one in cut]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=256, help="rows decoded together (scale=tiny has 256)")
    parser.add_argument("--tokens", type=int, default=704, help="limit of an answer (scale=tiny has 704)")
    asked = parser.parse_args()
    silence_transformers()
    torch.set_num_threads(1)
    family, ours = Qwen3VL(), (native.decode_branches, evaluation._rest)
    model = family.load().eval()
    greedy = native.NativeAnswers(family=family)
    greedy.refresh(model)
    settings = Evaluation(num_samples=asked.samples, num_curve_samples=1, batch_size=asked.batch, max_new_tokens=asked.tokens)
    sides = {"ours": ours, "generate": (generated, lambda free, forced: None)}  # The library's side decodes all three answers.
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    results: dict[str, evaluation.EvalResult] = {}
    for _ in range(asked.pairs):
        for name, side in sides.items():
            native.decode_branches, evaluation._rest = side
            began = time.process_time(), time.perf_counter()
            results[name] = evaluation.evaluate(greedy=greedy, family=family, task=TASK, settings=settings)
            seconds[name].append((time.process_time() - began[0], time.perf_counter() - began[1]))
    native.decode_branches, evaluation._rest = ours
    ratios, of_clock = ([b[i] / a[i] for a, b in zip(seconds["ours"], seconds["generate"], strict=True)] for i in (0, 1))
    said = [[one["ids"] for record in results[name].records for one in record["responses"].values()] for name in sides]
    equal = fmean(a == b for a, b in zip(*said, strict=True))
    found = {
        "ratio": median(ratios), "lowest": min(ratios), "highest": max(ratios), "ratio_of_clock": median(of_clock),
        "seconds": {name: median(cpu for cpu, _ in spent) for name, spent in seconds.items()},
        "tokens": fmean(map(len, said[0])), "equal_answers_frac": equal,
    }  # fmt: skip
    print(f"1 thread, {asked.samples} samples, three answers each of {found['tokens']:.0f} tokens, {asked.pairs} pairs")
    print(f"ours {found['seconds']['ours']:.1f} s, generate {found['seconds']['generate']:.1f} s (processor)")
    print(f"ratio {found['ratio']:.2f} ({found['lowest']:.2f} to {found['highest']:.2f}; of the clock {found['ratio_of_clock']:.2f})")
    print(f"{100 * equal:.1f} % of the answers are equal token for token")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"evaluation_{asked.samples}.json").write_text(json.dumps({"asked": vars(asked)} | found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
