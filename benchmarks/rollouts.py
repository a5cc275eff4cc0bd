"""Groups of the native engine beside those of `model.generate(num_return_sequences=G)`: same model, prompts, lengths and precision.

    python benchmarks/rollouts.py                                      both families, 5 pairs of 8 prompts with 8 rollouts
    python benchmarks/rollouts.py --prompts 4                          32 rows in a batch
    python benchmarks/rollouts.py --pairs 1 --tokens 64 --length 64    a quick look

Packaged tiny models on Sudoku pictures, one thread, in two arms. `own ends`: rollouts end where the model ends them, or at the limit, as in
training; both sides draw from one distribution, and the mean length of each is shown. `one length`: the end token is out of reach of both,
so that no row leaves early and every rollout has `--length` tokens. One side follows the other in each pair, so that a slow minute of the
machine meets both. A ratio above 1 means that the native engine is faster; it is of processor seconds a rollout, which other
processes disturb less than the clock (shown beside them).
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from statistics import fmean, median

os.environ["DS_ACCELERATOR"] = "cpu"  # Before transformers, which imports DeepSpeed where it finds it.

import torch
import transformers
from transformers import PreTrainedModel

from percasym.config.sampling import Native
from percasym.models.base import Family
from percasym.models.internvl35 import InternVL35
from percasym.models.locate import CheckpointError
from percasym.models.qwen3vl import Qwen3VL
from percasym.rollout.native import NativeRollouts
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import Prompt, SampleKey

RESULTS = Path(__file__).parent / "results" / "rollouts.json"
Side = Callable[[PreTrainedModel, Family, Sequence[Prompt], int, int], list[int]]


def native(model: PreTrainedModel, family: Family, prompts: Sequence[Prompt], group: int, tokens: int) -> list[int]:
    """Sample groups; the length of each rollout."""
    engine = NativeRollouts(family=family, sampling=Native(max_new_tokens=tokens, batch_size=len(prompts) * group))
    engine.refresh(model)
    return [len(rollout.completion.ids) for siblings in engine.generate(prompts, group_size=group, seed=0) for rollout in siblings]


def generated(model: PreTrainedModel, family: Family, prompts: Sequence[Prompt], group: int, tokens: int) -> list[int]:
    """The same by the library: the prompts are of one length, so its batch needs no padding either."""
    batch, end = family.collate([family.prompt(prompt) for prompt in prompts]), family.codec().end
    types = {"mm_token_type_ids": (batch.ids == model.config.image_token_id).int()} if "image_grid_thw" in batch.inputs else {}
    with torch.inference_mode():
        ids = model.generate(
            input_ids=batch.ids, attention_mask=batch.mask, **batch.inputs, **types,
            max_new_tokens=tokens, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=group,
            eos_token_id=end, pad_token_id=end, suppress_tokens=family.codec().banned,
        )  # fmt: skip
    responses = [row[batch.ids.shape[1] :].tolist() for row in ids]
    return [response.index(end) + 1 if end in response else len(response) for response in responses]


@contextmanager
def endless(model: PreTrainedModel, end: int) -> Iterator[None]:
    """While it lasts, the end token is out of reach."""

    def never(_: object, __: object, logits: torch.Tensor) -> torch.Tensor:
        logits[..., end] = -1e4
        return logits

    hook = model.get_submodule("lm_head").register_forward_hook(never)
    yield
    hook.remove()


def compare(model: PreTrainedModel, family: Family, prompts: Sequence[Prompt], asked: argparse.Namespace, tokens: int) -> dict[str, float]:
    """Seconds a rollout of both sides, the ratios of pairs, and the lengths they sampled."""
    seconds: dict[Side, list[tuple[float, float]]] = {native: [], generated: []}
    lengths: dict[Side, list[int]] = {native: [], generated: []}
    for side in seconds:
        side(model, family, prompts, asked.group, 4)  # What is made once.
    for _ in range(asked.pairs):
        for side in seconds:
            began = time.process_time(), time.perf_counter()
            sampled = side(model, family, prompts, asked.group, tokens)
            spent = time.process_time() - began[0], time.perf_counter() - began[1]
            seconds[side].append((spent[0] / len(sampled), spent[1] / len(sampled)))
            lengths[side] += sampled
    ratios, of_clock = ([theirs[i] / ours[i] for ours, theirs in zip(seconds[native], seconds[generated], strict=True)] for i in (0, 1))
    return {
        "ratio": median(ratios), "lowest": min(ratios), "highest": max(ratios), "ratio_of_clock": median(of_clock),
        "native_seconds": median(cpu for cpu, _ in seconds[native]), "generate_seconds": median(cpu for cpu, _ in seconds[generated]),
        "native_tokens": fmean(lengths[native]), "generate_tokens": fmean(lengths[generated]),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--group", type=int, default=8, help="rollouts of each prompt (G)")
    parser.add_argument("--tokens", type=int, default=512, help="limit of a rollout that ends by itself")
    parser.add_argument("--length", type=int, default=128, help="tokens of each rollout where all have one length")
    parser.add_argument("--pairs", type=int, default=5)
    asked = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    task = Sudoku()
    prompts = [task.sample(SampleKey(task=task.name, split="test", seed=0, index=i)).prompt for i in range(asked.prompts)]
    torch.set_num_threads(1)
    print(
        f"1 thread, {asked.prompts} prompts x {asked.group} rollouts, float32, {asked.pairs} pairs; processor seconds a rollout", flush=True
    )
    results: dict[str, dict[str, float]] = {}
    for family in (Qwen3VL(), InternVL35()):
        try:
            model = family.load().eval()
        except CheckpointError as error:
            print(f"{type(family).__name__}: left out. {error}")
            continue
        arms = (("own ends", nullcontext(), asked.tokens), ("one length", endless(model, family.codec().end), asked.length))
        for arm, condition, tokens in arms:
            with condition:
                name = f"{type(family).__name__}, {arm}"
                found = results[name] = compare(model, family, prompts, asked, tokens)
            speeds = f"{found['native_seconds']:.3f} s beside {found['generate_seconds']:.3f} s"
            spread = (
                f"ratio {found['ratio']:.2f} ({found['lowest']:.2f} to {found['highest']:.2f}; of the clock {found['ratio_of_clock']:.2f})"
            )
            print(
                f"{name:>22}: {speeds}, {spread}, {found['native_tokens']:.0f} and {found['generate_tokens']:.0f} tokens each", flush=True
            )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"asked": vars(asked), "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
