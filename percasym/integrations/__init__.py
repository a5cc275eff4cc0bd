"""percasym inside other trainers: transformers' Trainer, TRL's SFTTrainer and GRPOTrainer. See docs/in-your-trainer.md."""
