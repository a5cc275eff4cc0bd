"""What BalancedSFTTrainer must do under DDP; `test_two_ranks.py` starts this file under torchrun, once in each of two processes."""

from __future__ import annotations

import pytest
from datasets import Dataset
from torch import distributed
from trl import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from percasym.balance.registry import balancer
from percasym.integrations.collate import SpanCollator
from percasym.integrations.trl import BalancedSFTTrainer
from percasym.models.base import Batch
from percasym.models.qwen3vl import Qwen3VL

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("name", ["none", "fixed", "ngdiff"])
def test_two_processes_have_the_curve_of_the_own_loop_on_one(
    name, accumulation, windows, own_loop, tiny_qwen, tmp_path, logged, assert_same_curve
) -> None:
    steps = [
        [Batch(ids=batch.ids.clamp(max=58), mask=batch.mask, labels=batch.labels, aligned=batch.aligned) for batch in window]
        for window in windows(micro=2 * accumulation)
    ]
    ours, _ = own_loop(steps, balancer(name))
    rows = [
        {"input_ids": ids[:length].tolist(), "labels": ids.where(own >= 0, -100)[:length].tolist(), "spans": own[:length].tolist()}
        for window in steps
        for batch in window
        for ids, length, own in zip(batch.ids, batch.mask.sum(1).tolist(), batch.labels, strict=True)
    ]
    config = SFTConfig(
        output_dir=str(tmp_path), max_length=None, max_steps=len(steps), per_device_train_batch_size=4 // accumulation,
        gradient_accumulation_steps=accumulation, learning_rate=3e-3, lr_scheduler_type="constant", adam_beta2=0.95, weight_decay=0.0,
        optim="adamw_torch_fused", train_sampling_strategy="sequential", use_cpu=True, bf16=False, report_to="none", save_strategy="no",
        logging_steps=1, disable_tqdm=True, gradient_checkpointing=False, dataloader_pin_memory=False, ddp_backend="gloo",
    )  # fmt: skip
    trainer = BalancedSFTTrainer(
        tiny_qwen(),
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=Qwen3VL().codec().tokenizer,
        data_collator=SpanCollator(DataCollatorForLanguageModeling(pad_token_id=0)),
        balance=name,
    )
    trainer.train()
    assert distributed.get_world_size() == 2
    if trainer.args.process_index == 0:
        assert_same_curve(logged(trainer), ours)
