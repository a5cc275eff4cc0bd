"""Signals to a running run: it writes a checkpoint, exits with the signal's code, and the same command resumes with equal results."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

SFT = ["scale=smoke", "engine=torch", "paradigm.steps=4", "paradigm.batch_size=2", "paradigm.eval_every=2", "balance=ngdiff"]
FEW = ["evaluation.num_samples=2", "evaluation.num_curve_samples=2", "evaluation.max_new_tokens=4", "evaluation.batch_size=1"]
RL = [
    "paradigm=rl", "paradigm.group_size=2", "paradigm.micro_batch_size=2", "rollout.max_new_tokens=8", "paradigm.diagnose_every=0",
    "balance=fixed", "balance.weight=0.3",
]  # fmt: skip
NAMES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.fixture
def train(command, blank: Path):
    """`train("rl", "hydra.run.dir=x")`: four steps on two samples, no checkpoint but the last."""
    return lambda paradigm, *words: command(*SFT, *(RL if paradigm == "rl" else []), *FEW, f"model.path={blank}", *words)


@pytest.fixture
def signal_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """`signal_at(3, SIGTERM)`: this process gets these signals in its third optimizer step from now on; the list grows with each step."""
    from percasym.engine.engine import SpanEngine

    real = SpanEngine.step

    def arm(number: int, *signals: int) -> list[int]:
        begun: list[int] = []

        def step(engine: SpanEngine, lr: float) -> object:
            begun.append(len(begun) + 1)
            for each in signals if len(begun) == number else ():
                os.kill(os.getpid(), each)
            return real(engine, lr)

        monkeypatch.setattr(SpanEngine, "step", step)
        return begun

    return arm


def curve(run: Path) -> list[dict]:
    """metrics.jsonl without what a clock wrote."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "second" not in key} for line in lines]


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir()) if (run / "checkpoints").exists() else []


def status(run: Path) -> str:
    return json.loads((run / "meta.json").read_text())["status"]


@pytest.fixture(scope="module")
def wholes() -> dict[str, list[dict]]:
    """The curves of undisturbed runs."""
    return {}


@pytest.fixture
def whole(train, wholes: dict[str, list[dict]], tmp_path: Path) -> Callable[[str], list[dict]]:
    def curve_of(paradigm: str) -> list[dict]:
        if paradigm not in wholes:
            assert train(paradigm, "hydra.run.dir=whole").code == 0
            wholes[paradigm] = curve(tmp_path / "whole")
        return wholes[paradigm]

    return curve_of


@pytest.mark.parametrize(
    ("paradigm", "signum"),
    [("sft", signal.SIGINT), pytest.param("sft", signal.SIGTERM, marks=pytest.mark.slow), ("rl", signal.SIGTERM)],
)
def test_the_step_is_finished_and_kept(train, signal_at, whole, tmp_path: Path, paradigm: str, signum: int) -> None:
    expected, run = whole(paradigm), tmp_path / "run"
    steps = signal_at(3, signum)
    stopped = train(paradigm, "hydra.run.dir=run")
    assert stopped.code == NAMES[signum]
    assert stopped.err.splitlines()[-1] == "Interrupted. The same command resumes run."
    assert (status(run), checkpoints(run)) == ("interrupted", ["step_000003"])
    assert train(paradigm, "hydra.run.dir=run").code == 0
    assert steps == [1, 2, 3, 4], "no step is lost"
    assert curve(run) == expected


def test_an_evaluation_ends_at_once_and_is_made_again(train, whole, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from percasym.rollout import native

    expected, run, real = whole("sft"), tmp_path / "run", native.generate_batch
    calls: list[int] = []

    def generate_batch(*given: object, **named: object) -> object:
        calls.append(len(calls))
        if len(calls) == 7:  # Two samples are answered three times each before training; this is the first one on the way.
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*given, **named)

    monkeypatch.setattr(native, "generate_batch", generate_batch)
    assert train("sft", "hydra.run.dir=run").code == 143
    assert len(calls) == 7
    assert checkpoints(run) == ["step_000002"], "what was learned is kept"
    assert [line["step"] for line in curve(run)][-2:] == [1, 2]
    assert train("sft", "hydra.run.dir=run").code == 0
    assert curve(run) == expected, "no evaluation is missing, none is there twice"


def test_before_the_first_step_there_is_nothing_to_keep(train, whole, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from percasym.app import evaluator as evaluator

    expected, run, real = whole("sft"), tmp_path / "run", evaluator.evaluate

    def evaluate(**given: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return real(**given)

    with monkeypatch.context() as patch:
        patch.setattr(evaluator, "evaluate", evaluate)
        assert train("sft", "hydra.run.dir=run").code == 130
    assert (status(run), checkpoints(run)) == ("interrupted", [])
    assert train("sft", "hydra.run.dir=run").code == 0
    assert curve(run) == expected


def test_the_second_signal_stops_amid_a_step(train, signal_at, tmp_path: Path) -> None:
    steps = signal_at(3, signal.SIGTERM, signal.SIGTERM)
    assert train("sft", "paradigm.save_every=1", "hydra.run.dir=run").code == 143
    assert steps == [1, 2, 3]
    assert (status(tmp_path / "run"), checkpoints(tmp_path / "run")) == ("interrupted", ["step_000001", "step_000002"])


def test_sigusr1_asks_for_a_checkpoint_and_no_more(train, signal_at, whole, tmp_path: Path) -> None:
    expected, run = whole("sft"), tmp_path / "run"
    signal_at(2, signal.SIGUSR1)
    assert train("sft", "hydra.run.dir=run").code == 0
    assert (status(run), checkpoints(run)) == ("done", ["step_000002", "step_000004"])
    assert curve(run) == expected
