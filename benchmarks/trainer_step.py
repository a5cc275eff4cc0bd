"""One step of BalancedTrainer beside one of a plain `transformers.Trainer`, in paired rounds.

    python benchmarks/trainer_step.py                     5 rounds, one thread: some minutes on a free core
    python benchmarks/trainer_step.py --rounds 2          a quick look

The packaged Qwen3-VL with vision tower and projector frozen, as `scale=tiny` trains it, on demonstrations of `task=sudoku`. Every arm gets
the same batch, which is what a stock processor returns with the column `spans`; optimizer, clipping and precision are the same. A round
goes through all arms once, forwards and backwards in turn; a ratio is the median over rounds of processor seconds of the second step,
which other processes disturb less than the clock (shown beside them).

    trainer    Trainer: the model's own forward and loss, logits of every position
    none       BalancedTrainer(balance="none"): one pass; the head only at supervised positions
    ngdiff     BalancedTrainer(balance="ngdiff"): prefixes of perception first, then whole rows, both gradients and their Gramian
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from statistics import median

os.environ["DS_ACCELERATOR"] = "cpu"  # Before transformers, which imports DeepSpeed where it finds it.

import torch
import transformers
from sft_step import FAMILY, GRID, Watch
from transformers import PrinterCallback, Trainer, TrainingArguments

from percasym.data.generated import Generated
from percasym.integrations.transformers import BalancedTrainer
from percasym.models.base import Batch
from percasym.models.qwen3vl import IMAGE
from percasym.objectives.coefficients import span_counts
from percasym.tasks.sudoku.task import Sudoku
from percasym.types import UNSUPERVISED

RESULTS = Path(__file__).parent / "results" / "trainer_step.json"
ROWS = 16
ARMS = ("trainer", "none", "ngdiff")
CASES = {
    "2.6 % perception": Sudoku(**GRID, verbosity=2, restate=True),
    "scale=tiny": Sudoku(**GRID, verbosity=4, restate=True),
}
"""Demonstrations by perception's share of their tokens; those of `scale=tiny` have 2.2 %."""


def inputs_of(batch: Batch) -> dict[str, torch.Tensor]:
    """What a stock processor and a collator with spans hand over."""
    image = FAMILY.codec().tokenizer.get_vocab()[IMAGE]
    labels = batch.ids.masked_fill(batch.labels == UNSUPERVISED, -100)
    types = (batch.ids == image).int()
    tokens = {"input_ids": batch.ids, "attention_mask": batch.mask, "mm_token_type_ids": types, "labels": labels, "spans": batch.labels}
    return {**tokens, **batch.inputs}


def step(arm: str, model: torch.nn.Module, inputs: dict[str, torch.Tensor], steps: int) -> tuple[float, float]:
    """Processor and wall seconds of the last of `steps` steps: the first one measures both gradients under every strategy."""
    watch, rest = Watch(), dict(inputs)
    with tempfile.TemporaryDirectory() as directory:
        arguments = TrainingArguments(
            output_dir=directory, max_steps=steps, per_device_train_batch_size=1, learning_rate=5e-4, max_grad_norm=1.0, adam_beta2=0.95,
            weight_decay=0.0, optim="adamw_torch_fused", use_cpu=True, bf16=False, report_to="none", save_strategy="no",
            logging_strategy="no", disable_tqdm=True, remove_unused_columns=False, dataloader_num_workers=0,
        )  # fmt: skip
        given = {"train_dataset": list(range(steps)), "callbacks": [watch]}
        if arm == "trainer":
            rest.pop("spans")
            trainer = Trainer(model, arguments, data_collator=lambda _: dict(rest), **given)
        else:
            trainer = BalancedTrainer(model, arguments, data_collator=lambda _: dict(rest), balance=arm, probe_every=None, **given)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    if arm != "trainer":
        del model.forward  # The balanced forward stays in place of the model's own.
    return watch.seconds


def measure(task: Sudoku, rounds: int) -> dict:
    """Seconds of every arm in every round; round 0 warms up and is not kept."""
    stream = Generated(task=task, family=FAMILY, batch_size=ROWS, micro_batch_size=ROWS, seed=0)
    model, seconds = FAMILY.load(), {arm: [] for arm in ARMS}
    start = {name: value.clone() for name, value in model.state_dict().items()}
    for number in range(rounds + 1):
        whole = Batch.joined(stream.window(number))
        for arm in ARMS if number % 2 else reversed(ARMS):
            model.load_state_dict(start)
            model.zero_grad()
            spent = step(arm, model, inputs_of(whole), steps=2)
            if number:
                seconds[arm].append(spent)
    counts, lengths = span_counts([whole.labels]).tolist(), whole.mask.sum(1)
    found = {"share_of_tokens": counts[0] / sum(counts), "shortest": int(lengths.min()), "longest": int(lengths.max()), "seconds": seconds}
    found["ratios"] = {}
    for arm in ARMS[1:]:
        both = list(zip(seconds[arm], seconds["trainer"], strict=True))
        cpu, wall = ([mine[i] / theirs[i] for mine, theirs in both] for i in range(2))
        found["ratios"][f"{arm} / trainer"] = {"median": median(cpu), "low": min(cpu), "high": max(cpu), "clock": median(wall)}
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    arguments.add_argument("--rounds", type=int, default=5)
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    report = {"rounds": asked.rounds, "threads": 1, "rows": ROWS, "cases": {}}
    for name in asked.cases:
        found = report["cases"][name] = measure(CASES[name], asked.rounds)
        print(f"{name}: {ROWS} rows of {found['shortest']} to {found['longest']} tokens, perception {found['share_of_tokens']:.2%}")
        for pair, ratio in found["ratios"].items():
            print(f"  {pair}: {ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f}), by the clock {ratio['clock']:.3f}")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
