"""Groups of the native engine beside those of `model.generate(num_return_sequences=G)`: same model, prompts, lengths and precision.

    python benchmarks/rollouts.py                            both families, 10 pairs of 4 prompts with 8 rollouts of 128 tokens
    python benchmarks/rollouts.py --pairs 2 --tokens 32      a quick look

Packaged tiny models on Sudoku pictures; the end token is out of reach of both, so that every rollout has the same length and the
ratio is one of speed alone (rows that leave early only help the native engine). One side follows the other in each pair, so that a
slow minute of the machine meets both; a first pair is not counted. A ratio above 1 means that the native engine is faster.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from statistics import median

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


def native(model: PreTrainedModel, family: Family, prompts: Sequence[Prompt], group: int, tokens: int) -> int:
    """Sample groups; the number of tokens they have."""
    engine = NativeRollouts(family=family, sampling=Native(max_new_tokens=tokens, batch_size=len(prompts) * group))
    engine.refresh(model)
    return sum(len(rollout.completion.ids) for siblings in engine.generate(prompts, group_size=group, seed=0) for rollout in siblings)


def generated(model: PreTrainedModel, family: Family, prompts: Sequence[Prompt], group: int, tokens: int) -> int:
    """The same by the library: the prompts are of one length, so its batch needs no padding either."""
    batch = family.collate([family.prompt(prompt) for prompt in prompts])
    types = {"mm_token_type_ids": (batch.ids == model.config.image_token_id).int()} if "image_grid_thw" in batch.inputs else {}
    with torch.inference_mode():
        ids = model.generate(
            input_ids=batch.ids, attention_mask=batch.mask, **batch.inputs, **types,
            max_new_tokens=tokens, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=group,
            eos_token_id=family.codec().end, pad_token_id=family.codec().end, suppress_tokens=family.codec().banned,
        )  # fmt: skip
    return ids[:, batch.ids.shape[1] :].numel()


def seconds(work: Callable[..., int], *arguments: object, expected: int) -> float:
    """How long it took to sample `expected` tokens."""
    began = time.perf_counter()
    made = work(*arguments)
    took = time.perf_counter() - began
    assert made == expected, f"{made} tokens in place of {expected}: the two sides did not do the same work"
    return took


def endless(model: PreTrainedModel, end: int) -> None:
    """Put the end token out of reach."""

    def never(_: object, __: object, logits: torch.Tensor) -> torch.Tensor:
        logits[..., end] = -1e4
        return logits

    model.get_submodule("lm_head").register_forward_hook(never)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=8, help="rollouts of each prompt (G)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each rollout")
    parser.add_argument("--pairs", type=int, default=10)
    asked = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    task, num = Sudoku(), asked.prompts * asked.group
    prompts = [task.sample(SampleKey(task=task.name, split="test", seed=0, index=i)).prompt for i in range(asked.prompts)]
    work = f"{asked.prompts} prompts x {asked.group} rollouts of {asked.tokens} tokens"
    print(f"{torch.get_num_threads()} threads, {work}, float32, {asked.pairs} pairs")
    for family in (Qwen3VL(), InternVL35()):
        name = type(family).__name__
        try:
            model = family.load().eval()
        except CheckpointError as error:
            print(f"{name:>12}: left out. {error}")
            continue
        endless(model, family.codec().end)
        arguments = (model, family, prompts, asked.group, asked.tokens)
        ours, theirs, ratios = [], [], []
        for pair in range(asked.pairs + 1):
            took = [seconds(side, *arguments, expected=num * asked.tokens) for side in (native, generated)]
            if pair:
                ours.append(num / took[0])
                theirs.append(num / took[1])
                ratios.append(took[1] / took[0])
        rates = f"{median(ours):.2f} rollouts/s beside {median(theirs):.2f}"
        print(f"{name:>12}: {rates}, ratio {median(ratios):.2f} (pairs {min(ratios):.2f} to {max(ratios):.2f})", flush=True)


if __name__ == "__main__":
    main()
