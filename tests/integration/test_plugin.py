"""examples/plugin: a task, a strategy and a reward of another package train, by one file and one yaml each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from percasym.cli.main import main

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "plugin"


@pytest.fixture
def train(command: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable:
    """`train("task=clock")`: a run at scale=smoke with the packaged tiny model, the example's package and yaml files."""
    monkeypatch.syspath_prepend(EXAMPLE)
    few = ["evaluation.num_samples=2", "evaluation.num_curve_samples=1", "evaluation.max_new_tokens=16", "paradigm.steps=2"]
    return lambda *words: command("--config-dir", str(EXAMPLE / "conf"), "plugins=[clocks]", "scale=smoke", "engine=torch", *few, *words)


def test_the_task_and_the_strategy_train_by_sft(train: Callable, tmp_path: Path) -> None:
    answer = train("task=clock", "balance=loss_share", "balance.target=0.3")
    assert answer.code == 0, answer.err
    run = tmp_path / "multirun/main/clock-qwen3vl-sft-loss_share-smoke/seed0"
    assert json.loads((run / "summary.json").read_text())["status"] == "done"
    steps = [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss/total" in line]
    first, second = steps
    perception, reasoning = first["loss/perception"], first["loss/reasoning"]
    assert second["balance/weight"] == pytest.approx(0.3 * reasoning / (0.3 * reasoning + 0.7 * perception))


def test_the_task_and_the_reward_train_by_rl_and_the_reward_is_measured(train: Callable, tmp_path: Path) -> None:
    answer = train("task=clock", "paradigm=rl", "balance=fixed", "balance.weight=0.3", "reward=nearest")
    assert answer.code == 0, answer.err
    run = tmp_path / "multirun/main/clock-qwen3vl-rl-fixed0.3-nearest-smoke/seed0"
    logged = {key for line in (run / "metrics.jsonl").read_text().splitlines() for key in json.loads(line)}
    assert {"reward/Nearest/zero_variance", "reward/consensus/zero_variance", "loss/policy"} <= logged


def test_the_commands_take_them(train: Callable, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert train("task=clock", "balance=loss_share", "paradigm.steps=1").code == 0
    assert main(["report", "multirun/main"]) == 0
    assert "loss_share" in (tmp_path / "multirun/main/report/report.md").read_text()
    words = ["task=clock", "plugins=[clocks]", f"hydra.searchpath=[{EXAMPLE / 'conf'}]", "scale=smoke", "balance=loss_share"]
    capsys.readouterr()
    assert main(["plan", *words]) == 0, capsys.readouterr().err
    assert main(["gallery", *words, "--samples", "1", "--out", "shown"]) == 0, capsys.readouterr().err
    assert "What time is it in 35 minutes?" in (tmp_path / "shown" / "clock.html").read_text()


def test_without_the_package_the_class_is_refused(train: Callable) -> None:
    answer = train("task=clock", "plugins=[]")
    assert answer.code == 2
    assert answer.err == "task._target_=clocks.task.Clock lies outside percasym; add its package to plugins=[...] if you trust it.\n"
