"""What two ranks must do together; `test_ranks.py` starts this file under torchrun, once in each of two processes.

Every test runs on both ranks at once. Each compares with one rank of plain PyTorch with all rows.
"""

from __future__ import annotations

import os
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from percasym.balance.hidden import Hidden
from percasym.balance.ngdiff import NGDiff
from percasym.balance.none import NoBalance
from percasym.config.paradigm import Sft
from percasym.engine import deepspeed
from percasym.engine.ranks import Ranks
from percasym.rollout.vllm_engine import merged_weights
from percasym.training.sft import train
from percasym.types import Span
from tests.recording import Record

P, R = Span.perception, Span.reasoning
BALANCERS = {"none": NoBalance(), "ngdiff": NGDiff()}
ROWS, STEPS = 8, 5
ENGINES = ["torch", "deepspeed0", *(f"deepspeed{stage}{offload}" for stage in (1, 2, 3) for offload in ("", "-offload"))]
FAMILIES = ["qwen3vl", "internvl35"]
QUICK = {
    ("qwen3vl", "torch", "ngdiff", 1, "full"),
    ("qwen3vl", "deepspeed2", "ngdiff", 1, "full"),
    ("qwen3vl", "deepspeed3", "ngdiff", 1, "full"),
    ("internvl35", "deepspeed3", "none", 4, "lora"),
}
"""Family, engine, strategy, rows in a forward (1: four micro-batches, 4: one), full or LoRA: what `make test` runs of all there is."""


def cases() -> list:
    found = product(FAMILIES, ENGINES, BALANCERS, (1, 4), ("full", "lora"))
    return [pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow, id="-".join(map(str, case))) for case in found]


@pytest.fixture(scope="session")
def ranks() -> Ranks:
    return Ranks.join(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), torch.device("cpu"))


@pytest.fixture
def family_name(request) -> str:
    return getattr(request, "param", "qwen3vl")


@pytest.fixture
def model(tiny_model):
    """Make a model: `model("lora", seed=0)`; adapters are drawn from the same seed on every rank."""
    from peft import LoraConfig

    def make(kind: str, seed: int = 0):
        made = tiny_model(seed=seed)
        if kind == "lora":
            made.add_adapter(LoraConfig(r=4, target_modules=r"model\.language_model\..*(q_proj|v_proj|up_proj)"))
            for name, parameter in made.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.1)  # Not zero, or half of the gradients were.
        return made

    return make


def weights(engine) -> torch.Tensor:
    """All parameters as one vector."""
    with engine.gathered_weights() as model:
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).clone()


def trained(engine, windows, balancer) -> Record:
    record = Record()
    settings = Sft(steps=len(windows), batch_size=ROWS, micro_batch_size=ROWS, lr=1e-3, warmup_frac=0.0)
    train(engine=engine, batches=windows, balancer=balancer, settings=settings, run=record, evaluate=lambda step: None)
    return record


@pytest.mark.parametrize(("family_name", "engine_name", "balancer", "rows", "kind"), cases(), indirect=["family_name"])
def test_two_ranks_train_as_one_does(engine_name, balancer, rows, kind, ranks, make_engine, model, tiny_batch, micro_batches) -> None:
    batches = [tiny_batch(rows=ROWS, seed=step) for step in range(STEPS)]
    one, two = make_engine("torch", model(kind)), make_engine(engine_name, model(kind), ranks)
    alone = trained(one, [[batch] for batch in batches], BALANCERS[balancer])
    shared = trained(two, [micro_batches(batch, rows)[ranks.rank :: ranks.num_ranks] for batch in batches], BALANCERS[balancer])
    for ours, theirs in zip(shared.values, alone.values, strict=True):
        assert ours["balance/weight"] == pytest.approx(theirs["balance/weight"], rel=1e-3)
        for name in ("loss/total", "loss/perception", "grad/norm", *({"grad/perception", "grad/reasoning"} & theirs.keys())):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name
        assert ours["tokens/reasoning"] == theirs["tokens/reasoning"]
    expected = weights(one)
    moved = (expected - torch.cat([parameter.detach().flatten() for parameter in model(kind).parameters()])).norm()
    gap = (weights(two) - expected).norm()
    assert gap < 1e-4 * expected.norm()
    assert gap < 1e-2 * moved, "what training changed is the same too"
    assert ranks.gather(two.all_reduce_sum(torch.tensor([1.0 + ranks.rank])).item()) == [3.0, 3.0]


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_weights_leave_zero_3_one_parameter_at_a_time(kind, ranks, make_engine, model, monkeypatch) -> None:
    """What a refresh of vLLM reads: every weight whole, adapters merged, while all others stay partitioned."""
    stock = deepspeed._config
    monkeypatch.setattr(  # By default DeepSpeed keeps tensors of less than 100,000 elements whole, all of a tiny model.
        deepspeed, "_config", lambda *given, **options: stock(*given, **options) | {"zero_optimization": {
            **stock(*given, **options)["zero_optimization"], "stage3_param_persistence_threshold": 0}}
    )  # fmt: skip
    expected = dict(merged_weights(model(kind)))
    engine, most, sent = make_engine("deepspeed3", model(kind), ranks), 0, {}
    with engine.partitioned_weights() as (partitioned, gather):
        assert sum(parameter.numel() for parameter in partitioned.parameters()) == 0, "this rank holds parts only"
        for name, weight in merged_weights(partitioned, gather):
            most = max(most, sum(parameter.numel() for parameter in partitioned.parameters()))
            sent[name] = weight
        assert sum(parameter.numel() for parameter in partitioned.parameters()) == 0, "and again afterwards"
    assert most <= max(parameter.numel() for parameter in model(kind).parameters()), "at most one tensor was whole"
    assert sent.keys() == expected.keys()
    for name, weight in expected.items():
        assert_close(sent[name], weight, rtol=0, atol=1e-6 * weight.abs().max().item())


def test_ranks_receive_the_maximum_of_their_numbers(ranks) -> None:
    assert ranks.all_reduce_max([3 * ranks.rank, 2, -ranks.rank]) == [3, 2, 0]


@pytest.mark.parametrize("engine_name", ["deepspeed2", *(pytest.param(name, marks=pytest.mark.slow) for name in ("torch", "deepspeed3"))])
def test_two_ranks_measure_the_same_hidden_norms_as_one(engine_name, ranks, make_engine, model, tiny_batch, micro_batches) -> None:
    batches = [tiny_batch(rows=ROWS, seed=step) for step in range(2)]
    alone = trained(make_engine("torch", model("full")), [[batch] for batch in batches], Hidden())
    shared = trained(make_engine(engine_name, model("full"), ranks), [[micro_batches(batch, 4)[ranks.rank]] for batch in batches], Hidden())
    for ours, theirs in zip(shared.values, alone.values, strict=True):
        for name in ("hidden/perception", "hidden/reasoning", "balance/weight"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3), name


@pytest.mark.parametrize("engine_name", [name if name == "deepspeed3" else pytest.param(name, marks=pytest.mark.slow) for name in ENGINES])
def test_a_resumed_engine_goes_on_as_if_it_had_never_stopped(
    engine_name, ranks, make_engine, model, tiny_batch, micro_batches, tmp_path
) -> None:
    from transformers import AutoModelForImageTextToText

    def window(seed):
        return [micro_batches(tiny_batch(rows=ROWS, seed=seed), 4)[ranks.rank]]

    place = Path(ranks.broadcast(lambda: str(tmp_path)))
    engine = make_engine(engine_name, model("full"), ranks)
    trained(engine, [window(1)], NGDiff())
    saved = weights(engine)
    engine.save(place)
    trained(engine, [window(2)], NGDiff())

    plain = AutoModelForImageTextToText.from_pretrained(place / "model")
    assert_close(torch.cat([parameter.flatten() for parameter in plain.parameters()]), saved, rtol=0, atol=0)
    resumed = make_engine(engine_name, model("full", seed=9), ranks)
    resumed.load(place)
    trained(resumed, [window(2)], NGDiff())
    assert_close(weights(resumed), weights(engine), rtol=0, atol=0)
    alone = make_engine("torch", model("full", seed=9))  # One rank, and under ZeRO another engine.
    alone.load(place)
    assert_close(weights(alone), saved, rtol=0, atol=0)
    trained(alone, [[tiny_batch(rows=ROWS, seed=2)]], NGDiff())
    assert_close(weights(alone), weights(engine), rtol=0, atol=1e-4)


def test_a_gradient_of_one_rank_alone_reaches_all_ranks(ranks, make_engine, model, tiny_batch) -> None:
    engine = make_engine("torch", model("full"), ranks)
    batch = tiny_batch()
    text = type(batch)(ids=batch.ids.clamp(max=58), mask=batch.mask, labels=batch.labels, aligned=batch.aligned)
    engine.backward(engine.nll(text if ranks.rank else batch).sum())  # Rank 1 saw no picture.
    tower = [parameter.grad for name, parameter in engine.model.named_parameters() if "visual" in name or "vision" in name]
    assert all((grad is None) == bool(ranks.rank) for grad in tower)
    norms = ranks.gather(engine.step(1e-3).grad_norm)
    assert norms[0] == norms[1] > 0
    assert_close(*ranks.gather(weights(engine)), rtol=0, atol=0)
