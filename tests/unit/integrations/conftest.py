"""One stream of random rows as percasym's own loop and transformers' Trainer take it: the same rows in the same steps."""

from __future__ import annotations

import math

import pytest
import torch

from percasym.models.base import Batch
from tests.recording import Record

ROWS, STEPS, LR = 8, 20, 3e-3


class Rows(torch.utils.data.Dataset):
    """Micro-batches as a dataset: item i is micro-batch i, so that a collator of one item gives it back."""

    def __init__(self, batches: list[Batch]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, place: int) -> Batch:
        return self._batches[place]


def as_inputs(features: list[Batch]) -> dict[str, torch.Tensor]:
    """A micro-batch as a stock collator would hand it over, with spans."""
    (batch,) = features
    labels = batch.ids.masked_fill(batch.labels < 0, -100)
    given = {"input_ids": batch.ids, "attention_mask": batch.mask, "labels": labels, "spans": batch.labels}
    return {**given, **batch.inputs, **batch.aligned}


def without_pictures(batch: Batch) -> Batch:
    """The same rows with text in place of the picture."""
    return Batch(ids=batch.ids.clamp(max=58), mask=batch.mask, labels=batch.labels, aligned=batch.aligned)


@pytest.fixture
def text_windows(windows):
    """As `windows`, with text in place of the pictures."""
    return lambda **sizes: [[without_pictures(batch) for batch in window] for window in windows(**sizes)]


@pytest.fixture
def windows(tiny_batch, micro_batches):
    """Make the micro-batches of each step: `windows(steps=20, micro=4)` cuts steps of ROWS rows into `micro` each."""

    def make(steps: int = STEPS, micro: int = 1) -> list[list[Batch]]:
        return [micro_batches(tiny_batch(rows=ROWS, seed=step), ROWS // micro) for step in range(steps)]

    return make


@pytest.fixture
def own_loop(tiny_model, make_engine):
    """Train with percasym's own loop: `own_loop(windows, balancer, model=None, lr=LR)` returns the logged numbers and the model."""
    from percasym.config.paradigm import Sft
    from percasym.training.sft import train

    def run(windows, balancer, model=None, lr=LR):
        engine, record = make_engine("torch", model or tiny_model(), lr=lr), Record()
        settings = Sft(steps=len(windows), batch_size=ROWS, micro_batch_size=ROWS, lr=lr, warmup_frac=0.0, final_lr_frac=1.0)
        train(engine=engine, batches=windows, balancer=balancer, settings=settings, run=record, evaluate=lambda step: None)
        return record.values, engine.model

    return run


@pytest.fixture
def train_with_trl(tmp_path, tiny_qwen):
    """BalancedSFTTrainer, trained on these windows: `train_with_trl(windows, "ngdiff", rows_each=4, accumulation=2, **SFTConfig)`."""

    def run(windows, balance, *, rows_each, accumulation, **options):
        from datasets import Dataset
        from trl import SFTConfig
        from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

        from percasym.integrations.collate import SpanCollator
        from percasym.integrations.trl import BalancedSFTTrainer
        from percasym.models.qwen3vl import Qwen3VL

        rows = [
            {"input_ids": ids[:length].tolist(), "labels": ids.where(own >= 0, -100)[:length].tolist(), "spans": own[:length].tolist()}
            for window in windows
            for batch in window
            for ids, length, own in zip(batch.ids, batch.mask.sum(1).tolist(), batch.labels, strict=True)
        ]
        given = {
            "output_dir": str(tmp_path), "max_length": None, "max_steps": len(windows), "per_device_train_batch_size": rows_each,
            "gradient_accumulation_steps": accumulation, "learning_rate": LR, "lr_scheduler_type": "constant", "adam_beta2": 0.95,
            "weight_decay": 0.0, "optim": "adamw_torch_fused", "train_sampling_strategy": "sequential", "use_cpu": True, "bf16": False,
            "report_to": "none", "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True, "gradient_checkpointing": False,
            "dataloader_pin_memory": False,
        } | options  # fmt: skip
        trainer = BalancedSFTTrainer(
            tiny_qwen(),
            args=SFTConfig(**given),
            train_dataset=Dataset.from_list(rows),
            processing_class=Qwen3VL().codec().tokenizer,
            data_collator=SpanCollator(DataCollatorForLanguageModeling(pad_token_id=0)),
            balance=balance,
        )
        trainer.train()
        return trainer

    return run


@pytest.fixture
def make_trainer(tmp_path, tiny_model):
    """Make a BalancedTrainer on these windows: `make_trainer(windows, balance="ngdiff", accumulation=1, **TrainingArguments)`."""
    from transformers import TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    from percasym.integrations.transformers import BalancedTrainer

    def make(windows, balance, *, accumulation=1, model=None, cls=BalancedTrainer, probe_every=0, **options):
        model = model or tiny_model()  # Before the arguments: ZeRO-3 among them changes how transformers initialises a model.
        given = {
            "output_dir": str(tmp_path / "out"), "max_steps": len(windows), "per_device_train_batch_size": 1, "learning_rate": LR,
            "gradient_accumulation_steps": accumulation, "lr_scheduler_type": "constant", "adam_beta2": 0.95, "weight_decay": 0.0,
            "optim": "adamw_torch_fused", "use_cpu": True, "report_to": "none", "save_strategy": "no", "logging_steps": 1,
            "disable_tqdm": True, "remove_unused_columns": False, "train_sampling_strategy": "sequential", "dataloader_pin_memory": False,
        } | options  # fmt: skip
        arguments = TrainingArguments(**given)
        extra = {} if cls is not BalancedTrainer else {"balance": balance, "probe_every": probe_every}
        rows = Rows([batch for window in windows for batch in window])
        trainer = cls(model, arguments, data_collator=as_inputs, train_dataset=rows, eval_dataset=rows, **extra)
        trainer.remove_callback(PrinterCallback)
        return trainer

    return make


@pytest.fixture
def logged():
    """The lines that a trainer logged on training, in order."""
    return lambda trainer: [line for line in trainer.state.log_history if "loss" in line]


@pytest.fixture
def assert_same_curve():
    """Compare a trainer's lines with those of the own loop: every number that both log; losses to 1e-4 absolutely."""

    def compare(theirs: list[dict[str, float]], ours: list[dict[str, float]], tolerance: float = 1e-4) -> None:
        assert len(theirs) == len(ours)
        for step, (line, values) in enumerate(zip(theirs, ours, strict=True)):
            for name in sorted(values.keys() & line.keys() - {"step", "epoch"}):
                gap = abs(line[name] - values[name])
                close = gap < tolerance if name.startswith("loss") else gap < 2e-3 * max(1e-2, abs(values[name]))
                assert close or (math.isnan(line[name]) and math.isnan(values[name])), (step, name, line[name], values[name])
            assert abs(line["loss"] - values["loss/total"]) < tolerance, (step, line["loss"], values["loss/total"])
            assert line["grad_norm"] == pytest.approx(values["grad/norm"], rel=2e-3)

    return compare
