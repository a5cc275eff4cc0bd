"""One optimizer step of ours beside one of a plain `transformers.Trainer`: same model, same batch, same precision.

    python benchmarks/sft_step.py                      every arm against the Trainer, 10 pairs of blocks of 5 steps
    python benchmarks/sft_step.py --pairs 2 --rows 2   a quick look

A random model of the packaged size (hidden 128, 4 layers) on rows of about 400 tokens, perception 3 % of them. Blocks alternate between the
arms, so that a slow minute of the machine meets both; the first step of a block is not counted. A ratio below 1 means ours is faster.
`none` does what the Trainer does; `ngdiff` computes two span gradients and their Gramian at every step besides.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import nullcontext
from statistics import median
from types import SimpleNamespace

os.environ["DS_ACCELERATOR"] = "cpu"  # Before transformers, which imports DeepSpeed where it finds it.

import torch
import transformers
from torch.nn.utils.rnn import pad_sequence
from transformers import PrinterCallback, Qwen3VLConfig, Qwen3VLForConditionalGeneration, Trainer, TrainerCallback, TrainingArguments

from percasym.balance.ngdiff import NGDiff
from percasym.balance.none import NoBalance
from percasym.engine.deepspeed import deepspeed_engine
from percasym.engine.torch import torch_engine
from percasym.models.base import Batch
from percasym.paradigm import Sft
from percasym.runs.requests import Requests
from percasym.settings import DeepSpeedSettings, TorchSettings
from percasym.trainers.sft import train
from percasym.types import UNSUPERVISED, Span

VOCABULARY, IMAGE, START = 772, 771, 770
SIDE = 4  # Image tokens along one side: 64 pixels, patches of 8, merged 2 by 2.
CPU = torch.device("cpu")


def random_model() -> Qwen3VLForConditionalGeneration:
    torch.manual_seed(0)
    text = {
        "vocab_size": VOCABULARY, "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 32, "max_position_embeddings": 4096, "initializer_range": 0.06, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [6, 5, 5], "mrope_interleaved": True},
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 96, "intermediate_size": 256, "num_heads": 4, "patch_size": 8, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "out_hidden_size": 128, "num_position_embeddings": 64, "deepstack_visual_indexes": [0],
        "initializer_range": 0.06,
    }  # fmt: skip
    tokens = {"image_token_id": IMAGE, "vision_start_token_id": START, "tie_word_embeddings": True}
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **tokens))


def random_batch(rows: int) -> Batch:
    """Rows of 340 to 420 tokens: 20 of prompt and picture, 10 of perception, the rest reasoning."""
    draw = torch.Generator().manual_seed(0)
    ids, labels, positions = [], [], []
    for _ in range(rows):
        length = int(torch.randint(320, 400, (), generator=draw))
        prompt = torch.tensor([1, 2, START, *[IMAGE] * SIDE**2, 3])
        ids.append(torch.cat([prompt, torch.randint(0, START, (length,), generator=draw)]))
        labels.append(torch.tensor([UNSUPERVISED] * len(prompt) + [Span.perception] * 10 + [Span.reasoning] * (length - 10)))
        plane = torch.stack(torch.meshgrid(torch.arange(1), torch.arange(SIDE), torch.arange(SIDE), indexing="ij")).flatten(1) + 3
        rest = torch.arange(3 + SIDE, 4 + SIDE + length).expand(3, -1)
        positions.append(torch.cat([torch.arange(3).expand(3, -1), plane, rest], dim=1).T)
    patches = 4 * SIDE**2
    return Batch(
        ids=pad_sequence(ids, batch_first=True),
        mask=pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        labels=pad_sequence(labels, batch_first=True, padding_value=UNSUPERVISED),
        inputs={
            "pixel_values": torch.randn(rows * patches, 3 * 2 * 8 * 8, generator=draw),
            "image_grid_thw": torch.tensor([[1, 2 * SIDE, 2 * SIDE]]).expand(rows, -1),
        },
        aligned={"position_ids": pad_sequence(positions, batch_first=True).permute(2, 0, 1)},
    )


class Seconds(TrainerCallback):
    """Seconds of each step of a Trainer, from its begin to its end."""

    def __init__(self) -> None:
        self.steps: list[float] = []

    def on_step_begin(self, *_: object, **__: object) -> None:
        self.began = time.perf_counter()

    def on_step_end(self, *_: object, **__: object) -> None:
        self.steps.append(time.perf_counter() - self.began)


def trainer_block(model: torch.nn.Module, batch: Batch, steps: int, directory: str) -> list[float]:
    """`steps` steps of a plain Trainer on what a stock processor would hand it."""
    inputs = {
        "input_ids": batch.ids, "attention_mask": batch.mask, "mm_token_type_ids": (batch.ids == IMAGE).int(), **batch.inputs,
        "labels": batch.ids.masked_fill(batch.labels == UNSUPERVISED, -100),
    }  # fmt: skip
    arguments = TrainingArguments(
        output_dir=directory, max_steps=steps, per_device_train_batch_size=1, learning_rate=1e-3, lr_scheduler_type="cosine",
        warmup_steps=1, max_grad_norm=1.0, adam_beta2=0.95, weight_decay=0.0, optim="adamw_torch_fused", use_cpu=True, bf16=False,
        report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True, remove_unused_columns=False,
        dataloader_num_workers=0,
    )  # fmt: skip
    watch = Seconds()
    trainer = Trainer(model, arguments, train_dataset=list(range(steps)), data_collator=lambda _: dict(inputs), callbacks=[watch])
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    assert trainer.model_wrapped is trainer.model, "the Trainer is not plain: it wrapped the model"
    return watch.steps[1:]


class Silent:
    """A run that keeps the seconds of each step."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.requests = Requests()

    def log(self, step: int, values: dict[str, float]) -> None:
        self.steps.append(values["time/step_seconds"])

    def progress(self, *_: object, **__: object):
        return nullcontext(SimpleNamespace(advance=lambda step, **shown: None))

    def checkpoint(self, *_: object) -> None: ...


def our_block(engine, balancer, batch: Batch, steps: int) -> list[float]:
    """`steps` steps of our own loop."""
    run = Silent()
    settings = Sft(steps=steps, batch_size=len(batch.ids), micro_batch_size=len(batch.ids), lr=1e-3)
    train(engine=engine, batches=[[batch]] * steps, balancer=balancer, settings=settings, run=run, evaluate=lambda step: None)
    return run.steps[1:]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=12, help="rows in the batch (scale=tiny has 12)")
    arguments.add_argument("--pairs", type=int, default=10)
    arguments.add_argument("--steps", type=int, default=5, help="counted steps in a block")
    asked = arguments.parse_args()
    transformers.utils.logging.set_verbosity_error()
    batch, paradigm = random_batch(asked.rows), Sft(steps=1, batch_size=1, micro_batch_size=1, lr=1e-3)
    engines = {
        "torch": torch_engine(random_model(), settings=TorchSettings(precision="float32"), paradigm=paradigm, device=CPU),
        "deepspeed, ZeRO 0": deepspeed_engine(
            random_model(), settings=DeepSpeedSettings(precision="float32"), paradigm=paradigm, device=CPU
        ),
        "deepspeed, ZeRO 1": deepspeed_engine(
            random_model(), settings=DeepSpeedSettings(precision="float32", zero_stage=1), paradigm=paradigm, device=CPU
        ),
    }
    plain = random_model()
    print(f"{torch.get_num_threads()} threads, {tuple(batch.ids.shape)} tokens, float32, {asked.pairs} pairs of {asked.steps} steps")
    with tempfile.TemporaryDirectory() as directory:
        for name, engine in engines.items():
            for balancer in (NoBalance(), NGDiff()):
                ratios, ours, theirs = [], [], []
                for _ in range(asked.pairs):
                    theirs.append(median(trainer_block(plain, batch, asked.steps + 1, directory)))
                    ours.append(median(our_block(engine, balancer, batch, asked.steps + 1)))
                    ratios.append(ours[-1] / theirs[-1])
                arm = f"{name}, {type(balancer).__name__}"
                times = f"{median(ours):.3f} s beside {median(theirs):.3f} s"
                print(f"{arm:>28}: {times}, ratio {median(ratios):.3f} (pairs {min(ratios):.3f} to {max(ratios):.3f})", flush=True)


if __name__ == "__main__":
    main()
