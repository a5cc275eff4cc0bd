"""TRL's GRPOTrainer with a perception reward, and in its log what each reward goes together with.

    python examples/trl_grpo.py MODEL --reward consensus --weight 0.3 --steps 20

The rewards are those of docs/metrics.md: R = (1 - w) a + w times the perception reward. `consensus` never receives p*.
"""

import argparse

from datasets import Dataset
from transformers import AutoModelForImageTextToText
from trl import GRPOConfig, GRPOTrainer

from percasym import SampleKey, Sudoku
from percasym.integrations.trl import RewardCorrelations, grpo_row, outcome_reward, perception_reward
from percasym.models.auto import Auto
from percasym.models.processor import processor as load_processor  # AutoProcessor, also where torchvision is missing.


def main(words=None):
    """Train on fresh Sudokus."""
    given = argparse.ArgumentParser()
    options = {"model": None, "--reward": "consensus", "--weight": 0.3, "--steps": 20, "--num": 64, "--tokens": 512, "--out": "out"}
    for name, default in options.items():
        given.add_argument(name, default=default, type=type(default) if default else str)
    asked = given.parse_args(words)
    task, codec = Sudoku(), Auto(path=asked.model).codec()
    rewards = [outcome_reward(task, codec), perception_reward(task, codec, asked.reward)]
    config = GRPOConfig(
        asked.out,
        reward_weights=[1 - asked.weight, asked.weight],
        num_generations=4,
        per_device_train_batch_size=8,
        max_completion_length=asked.tokens,
        max_steps=asked.steps,
        logging_steps=1,
        gradient_checkpointing=False,
        bf16=False,
        report_to="none",
    )
    samples = [task.sample(SampleKey(task=task.name, split="train_rl", seed=0, index=index)) for index in range(asked.num)]
    trainer = GRPOTrainer(
        AutoModelForImageTextToText.from_pretrained(asked.model),
        reward_funcs=rewards,
        args=config,
        train_dataset=Dataset.from_list([grpo_row(sample) for sample in samples]),
        processing_class=load_processor(asked.model),
        callbacks=[RewardCorrelations(rewards, weights=config.reward_weights)],
    )
    trainer.train()
    return trainer


if __name__ == "__main__":
    main()
