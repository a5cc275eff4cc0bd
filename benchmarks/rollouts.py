"""Groups of the native engine beside those of `model.generate(num_return_sequences=G)`: same model, prompts, lengths and precision.

    python benchmarks/rollouts.py                          both families, 10 pairs of 4 prompts with 8 rollouts
    python benchmarks/rollouts.py --pairs 2 --tokens 64    a quick look

Packaged tiny models on Sudoku pictures, in two arms. `own ends`: rollouts end where the model ends them, or at the limit, as in training;
both sides draw from one distribution, and the mean length of each is shown. `one length`: the end token is out of reach of both, so
that no row leaves early and every rollout meets the limit. One side follows the other in each pair, so that a slow minute of the machine
meets both; a first pair is not counted. A ratio above 1 means that the native engine is faster, by rollouts a second of wall time.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from statistics import fmean, median

os.environ["DS_ACCELERATOR"] = "cpu"  # Before transformers, which imports DeepSpeed where it finds it.

import torch
import transformers
from transformers import PreTrainedModel

from percasym.models.base import Family
from percasym.models.checkpoint import CheckpointError
from percasym.models.internvl35 import InternVL35
from percasym.models.qwen3vl import Qwen3VL
from percasym.rollout.native import NativeRollouts
from percasym.sampling import Native
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import Prompt, SampleKey

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


def compare(model: PreTrainedModel, family: Family, prompts: Sequence[Prompt], asked: argparse.Namespace) -> str:
    """Rates of both sides, their ratio and the lengths they sampled, as a line."""
    rates: dict[Side, list[float]] = {native: [], generated: []}
    lengths: dict[Side, list[int]] = {native: [], generated: []}
    for pair in range(asked.pairs + 1):
        for side in rates:
            began = time.perf_counter()
            sampled = side(model, family, prompts, asked.group, asked.tokens)
            if pair:
                rates[side].append(len(sampled) / (time.perf_counter() - began))
                lengths[side] += sampled
    ratios = [ours / theirs for ours, theirs in zip(rates[native], rates[generated], strict=True)]
    speeds = f"{median(rates[native]):.2f} rollouts/s beside {median(rates[generated]):.2f}"
    tokens = f"{fmean(lengths[native]):.0f} and {fmean(lengths[generated]):.0f} tokens each"
    return f"{speeds}, ratio {median(ratios):.2f} (pairs {min(ratios):.2f} to {max(ratios):.2f}), {tokens}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=8, help="rollouts of each prompt (G)")
    parser.add_argument("--tokens", type=int, default=512, help="limit of each rollout")
    parser.add_argument("--pairs", type=int, default=10)
    asked = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    task = Sudoku()
    prompts = [task.sample(SampleKey(task=task.name, split="test", seed=0, index=i)).prompt for i in range(asked.prompts)]
    work = f"{asked.prompts} prompts x {asked.group} rollouts of at most {asked.tokens} tokens"
    print(f"{torch.get_num_threads()} threads, {work}, float32, {asked.pairs} pairs", flush=True)
    for family in (Qwen3VL(), InternVL35()):
        try:
            model = family.load().eval()
        except CheckpointError as error:
            print(f"{type(family).__name__}: left out. {error}")
            continue
        for arm, condition in (("own ends", nullcontext()), ("one length", endless(model, family.codec().end))):
            with condition:
                print(f"{type(family).__name__:>10}, {arm:>10}: {compare(model, family, prompts, asked)}", flush=True)


if __name__ == "__main__":
    main()
