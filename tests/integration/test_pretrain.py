"""The packaged checkpoints can be made again: the pretraining of `make base`, for a few steps."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from percasym.app import pretrain
from percasym.models.internvl35 import InternVL35

STEPS = 2


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`make("a")`: the weights after STEPS steps in the work directory `a`, with few samples for the tokenizer and few rows a step."""
    monkeypatch.setattr(pretrain, "corpus", partial(pretrain.corpus, num_samples=40))
    for name, num in (("NUM_CUT", 2), ("NUM_TEXTS", 1), ("NUM_WHOLE", 1)):
        monkeypatch.setattr(pretrain, name, num)
    threads = torch.get_num_threads()

    def run(work: str, steps: int = STEPS) -> bytes:
        out = tmp_path / f"{work}-checkpoint"
        words = ["--family", "internvl35", "--out", str(out), "--work", str(tmp_path / work), "--steps", str(steps), "--seed", "3"]
        monkeypatch.setattr(sys, "argv", ["pretrain", *words])
        pretrain.main()
        return (out / "model.safetensors").read_bytes()

    yield run
    torch.set_num_threads(threads)


def test_two_pretrainings_are_the_same_bits_and_give_a_checkpoint_that_loads(make, tmp_path: Path) -> None:
    assert make("a") == make("b")
    model = InternVL35(path=str(tmp_path / "a-checkpoint")).load()
    assert sum(parameter.numel() for parameter in model.parameters()) > 1_000_000
    blank = tmp_path / "a" / "blank" / "model.safetensors"
    assert blank.read_bytes() != (tmp_path / "a-checkpoint" / "model.safetensors").read_bytes(), "it has learned something"
