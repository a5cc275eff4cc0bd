"""TRL's SFTTrainer with one weight for each span, on a chat file with pictures whose responses are tagged.

    percasym export task=sudoku --num 200 --format messages --out rows
    python examples/trl_sft.py rows/train_sft.jsonl MODEL --balance ngdiff --steps 20
"""

import argparse
import json
from pathlib import Path

from datasets import Dataset, Image
from transformers import AutoModelForImageTextToText
from trl import SFTConfig
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from percasym import SpanCollator
from percasym.integrations.trl import BalancedSFTTrainer
from percasym.models.processor import processor as load_processor  # AutoProcessor, also where torchvision is missing.


def read(path: Path) -> Dataset:
    """Rows in TRL's form: a prompt, a completion and its pictures."""
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    columns = {
        "prompt": [[{**row["messages"][0], "content": row["messages"][0]["content"].removeprefix("<image>")}] for row in rows],
        "completion": [row["messages"][1:] for row in rows],
        "images": [[str(path.parent / name) for name in row["images"]] for row in rows],
    }
    return Dataset.from_dict(columns).cast_column("images", [Image()])


def main(words=None):
    """Train on the rows."""
    given = argparse.ArgumentParser()
    for name, default in {"rows": None, "model": None, "--balance": "ngdiff", "--steps": 20, "--out": "out"}.items():
        given.add_argument(name, default=default, type=type(default) if default else str)
    asked = given.parse_args(words)
    processor = load_processor(asked.model)
    config = SFTConfig(asked.out, max_steps=asked.steps, per_device_train_batch_size=4, logging_steps=1, learning_rate=1e-3,
                       max_length=None, gradient_checkpointing=False, bf16=False, report_to="none")  # fmt: skip
    trainer = BalancedSFTTrainer(
        AutoModelForImageTextToText.from_pretrained(asked.model),
        args=config,
        train_dataset=read(Path(asked.rows)),
        processing_class=processor,
        data_collator=SpanCollator(DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True), processor),
        balance=asked.balance,
    )
    trainer.train()
    return trainer


if __name__ == "__main__":
    main()
