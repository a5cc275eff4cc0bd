"""transformers' Trainer with one weight for each span, on a chat file with pictures whose responses are tagged.

    percasym export task=sudoku --num 200 --format messages --out rows
    python examples/trainer.py rows/train_sft.jsonl MODEL --balance ngdiff --steps 20
"""

import argparse
import json
from pathlib import Path

from PIL import Image
from transformers import AutoModelForImageTextToText, TrainingArguments

import percasym
from percasym.integrations.transformers import BalancedTrainer
from percasym.models.processor import processor as load_processor  # AutoProcessor, also where torchvision is missing.


def read(path: Path) -> list[dict]:
    """Question, response and picture of each row."""
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    turns = [[turn["content"].removeprefix("<image>") for turn in row["messages"]] for row in rows]
    return [{"question": q, "response": r, "image": path.parent / row["images"][0]} for (q, r), row in zip(turns, rows, strict=True)]


def collate(processor, rows):
    """Chat prompts with their pictures, then the responses, which alone have a loss."""
    images = [[Image.open(row["image"]).convert("RGB")] for row in rows]
    chats = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": row["question"]}]}] for row in rows]
    prompts = [processor.apply_chat_template(chat, add_generation_prompt=True) for chat in chats]
    texts = [prompt + row["response"] + processor.tokenizer.eos_token for prompt, row in zip(prompts, rows, strict=True)]
    batch = processor(images=images, text=texts, padding=True, padding_side="right", return_tensors="pt")
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    for place, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
        labels[place, : len(processor(images=[image], text=[prompt])["input_ids"][0])] = -100
    return {**batch, "labels": labels}


def main(words=None):
    """Audit the first rows, then train."""
    given = argparse.ArgumentParser()
    for name, default in {"rows": None, "model": None, "--balance": "ngdiff", "--steps": 20, "--out": "out"}.items():
        given.add_argument(name, default=default, type=type(default) if default else str)
    asked = given.parse_args(words)
    model, processor, rows = AutoModelForImageTextToText.from_pretrained(asked.model), load_processor(asked.model), read(Path(asked.rows))
    collator = percasym.SpanCollator(lambda some: collate(processor, some), processor)
    print(percasym.audit(model, rows[:8], collator, batch_size=4).advice())
    arguments = TrainingArguments(asked.out, max_steps=asked.steps, per_device_train_batch_size=4, remove_unused_columns=False,
                                  logging_steps=1, learning_rate=1e-3, report_to="none")  # fmt: skip
    trainer = BalancedTrainer(model, arguments, train_dataset=rows, data_collator=collator, balance=asked.balance)
    trainer.train()
    return trainer


if __name__ == "__main__":
    main()
