"""Checkpoints between numbers of ranks; `test_other_ranks.py` starts this file under torchrun, with another number of processes each time.

The folder in PERCASYM_CHECKPOINTS passes from one to the next: `test_resume` reads what `test_write` wrote on any other number of ranks.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from percasym.balance.ngdiff import NGDiff
from percasym.config.paradigm import Sft
from percasym.engine.ranks import Ranks
from percasym.training.sft import train
from tests.recording import Record

ROWS, STEPS = 8, 3
FOLDER = Path(os.environ.get("PERCASYM_CHECKPOINTS", ""))  # Unset where doctests are collected.
ENGINES = ["torch", "deepspeed0", *(f"deepspeed{stage}{offload}" for stage in (1, 2, 3) for offload in ("", "-offload"))]
CASES = [
    pytest.param(engine, kind, marks=[] if (engine, kind) in {("torch", "full"), ("deepspeed2", "full"), ("deepspeed3", "lora")} else
                 pytest.mark.slow) for engine in ENGINES for kind in ("full", "lora")
]  # fmt: skip


@pytest.fixture(scope="session")
def ranks() -> Ranks:
    return Ranks.join(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), torch.device("cpu"))


@pytest.fixture
def engine(tiny_model, make_engine, ranks, request):
    """`engine(seed=0)`: the engine of the case; a resumed one gets another seed, so nothing agrees by accident."""
    from peft import LoraConfig

    name, kind = request.node.callspec.params["name"], request.node.callspec.params["kind"]

    def make(seed: int):
        model = tiny_model(seed=0 if kind == "lora" else seed)  # A checkpoint of adapters does not hold the frozen base.
        if kind == "lora":
            torch.manual_seed(seed)
            model.add_adapter(LoraConfig(r=3, target_modules=r"model\.language_model\..*(q_proj|v_proj|up_proj)"))
            for parameter_name, parameter in model.named_parameters():
                if "lora_B" in parameter_name:
                    torch.nn.init.normal_(parameter, std=0.1)
        return make_engine(name, model, ranks, lr=1e-4)

    return make


@pytest.fixture
def go_on(ranks, tiny_batch, micro_batches):
    """Train some steps on the global batches of these numbers, each dealt out to the ranks."""

    def run(engine, numbers) -> None:
        windows = [[micro_batches(tiny_batch(rows=ROWS, seed=number), 1)[i] for i in range(ranks.rank, ROWS, ranks.num_ranks)]
                   for number in numbers]  # fmt: skip
        settings = Sft(steps=len(windows), batch_size=ROWS, micro_batch_size=1, lr=1e-4, warmup_frac=0.0)
        train(engine=engine, batches=windows, balancer=NGDiff(), settings=settings, run=Record(), evaluate=lambda step: None)

    return run


def weights(engine) -> torch.Tensor:
    with engine.gathered_weights() as model:
        return torch.cat([parameter.detach().flatten().float() for parameter in model.parameters()]).clone()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_write(name, kind, engine, go_on, ranks) -> None:
    place = FOLDER / f"{name}-{kind}-{ranks.num_ranks}"
    place.mkdir(exist_ok=True)
    made = engine(seed=0)
    go_on(made, range(STEPS))
    made.save(place)
    saved = weights(made)
    go_on(made, range(STEPS, 2 * STEPS))
    if ranks.rank == 0:
        torch.save([saved, weights(made)], place / "went-on.pt")
    else:
        weights(made)  # A collective under ZeRO-3.
    ranks.barrier()


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_resume(name, kind, engine, go_on, ranks) -> None:
    places = [place for place in sorted(FOLDER.glob(f"{name}-{kind}-*")) if not place.name.endswith(f"-{ranks.num_ranks}")]
    assert places
    for place in places:
        saved, expected = torch.load(place / "went-on.pt")
        resumed = engine(seed=9)
        resumed.load(place)
        assert torch.equal(weights(resumed), saved)
        go_on(resumed, range(STEPS, 2 * STEPS))
        gap, moved = (weights(resumed) - expected).abs().max(), (expected - saved).abs().max()
        assert gap < 1e-6 < moved / 100, (place.name, float(gap), float(moved))
