"""Every strategy in the SFT loop receives the numbers that it needs, at the right step."""

from __future__ import annotations

import math
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from percasym.balance.gradnorm import GradNorm
from percasym.balance.hidden import Hidden
from percasym.config.paradigm import Sft
from percasym.config.schema import build
from percasym.training.sft import train
from tests.recording import Record

CONF = Path(__file__).parents[3] / "conf" / "balance"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))


@pytest.fixture
def trained(make_engine, tiny_qwen, tiny_batch):
    """What each step logged: `trained(balancer, steps=3)`."""

    def run(balancer, steps: int = 3, **options):
        record, windows = Record(), [[tiny_batch(rows=4, seed=2 * step), tiny_batch(rows=4, seed=2 * step + 1)] for step in range(steps)]
        settings = Sft(steps=steps, batch_size=8, micro_batch_size=4, lr=1e-3, warmup_frac=0.0, **options)
        engine = make_engine("torch", tiny_qwen())
        train(engine=engine, batches=windows, balancer=balancer, settings=settings, run=record, evaluate=lambda step: None)
        return record.values

    return run


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_trains(name, trained):
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text().replace("${seed}", "0"))
    module, _, kind = values.pop("_target_").rpartition(".")
    balancer = build(getattr(import_module(module), kind), values, "balance")
    lines = trained(balancer)
    assert all(0 <= line["balance/weight"] <= 1 and math.isfinite(line["loss/total"]) for line in lines)
    assert all(("grad/cosine" in line) == (balancer.needs == "gramian" or step == 0) for step, line in enumerate(lines))
    assert all(("hidden/perception" in line) == (balancer.needs == "hidden") for line in lines)


def test_norms_at_the_hidden_state_set_the_weight_of_the_next_step(trained):
    lines = trained(Hidden())
    assert lines[0]["balance/weight"] == 0.5
    for before, after in pairwise(lines):
        perception, reasoning = before["hidden/perception"], before["hidden/reasoning"]
        assert after["balance/weight"] == pytest.approx(reasoning / (perception + reasoning))


def test_norms_at_the_hidden_state_are_those_of_a_step_that_measures_no_gradient(trained):
    # A measured step reaches perception through the prefix and reasoning apart; another reaches both at once.
    apart, together = trained(Hidden(), probe_every=1), trained(Hidden(), probe_every=0)
    for ours, theirs in zip(apart[1:], together[1:], strict=True):
        for span in ("perception", "reasoning"):
            assert ours[f"hidden/{span}"] == pytest.approx(theirs[f"hidden/{span}"], rel=1e-3)


def test_gradnorm_has_the_losses_of_the_very_step_whose_gradients_it_reads(trained):
    lines = trained(GradNorm(alpha=1.0, lr=0.1), steps=2)
    unit = [[line[f"grad/{span}"] for span in ("perception", "reasoning")] for line in lines]
    fell = [lines[1][f"loss/{span}"] / lines[0][f"loss/{span}"] for span in ("perception", "reasoning")]
    weights = (lines[0]["balance/weight"], 1 - lines[0]["balance/weight"])
    norms = [weight * norm for weight, norm in zip(weights, unit[1], strict=True)]
    goals = [sum(norms) * rate / sum(fell) for rate in fell]
    pulled = [
        weight - 0.1 * math.copysign(size / sum(unit[1]), norm - goal)
        for weight, size, norm, goal in zip(weights, unit[1], norms, goals, strict=True)
    ]
    assert lines[1]["balance/weight"] == pytest.approx(pulled[0] / sum(pulled), rel=1e-6)
