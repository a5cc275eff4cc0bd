"""Whole RL runs on the real vLLM: both families, full and with adapters, two seeds, and an interrupted run that resumes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
WORDS = [
    "paradigm=rl", "rollout=vllm", "task.givens=[12,14]", "paradigm.steps=3", "paradigm.batch_size=4", "paradigm.group_size=4",
    "paradigm.micro_batch_size=4", "paradigm.save_every=1", "paradigm.importance_cap=2", "evaluation.engine=vllm",
    "evaluation.num_samples=4", "evaluation.num_curve_samples=2", "evaluation.max_new_tokens=320",
]  # fmt: skip
ADAPTERS = ["model.lora.rank=4", "model.freeze=[vision,projector]"]


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *WORDS, *words, "hydra.run.dir=run"],
        cwd=folder, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def metrics(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "reward/outcome/mean" in line]


@pytest.mark.parametrize(
    ("family", "words", "seed"), [("qwen3vl", [], 0), ("qwen3vl", ADAPTERS, 1), ("internvl35", [], 1), ("internvl35", ADAPTERS, 0)]
)
def test_a_run_is_rewarded_and_learns_from_vllms_rollouts(tmp_path: Path, family: str, words: list[str], seed: int) -> None:
    done = start(tmp_path, f"model={family}", f"seed={seed}", *words)
    out, err = done.communicate()
    assert done.returncode == 0, err[-4000:]
    steps = metrics(tmp_path)
    assert len(steps) == 3
    assert max(step["reward/outcome/mean"] for step in steps) > 0, "some rollouts are right"
    assert all(step["policy/drift"] < 1e-3 for step in steps), "sampler and trainer hold the same weights in every round"
    assert all(abs(step["policy/importance"] - 1) < 1e-2 and step["policy/truncated"] == 0 for step in steps)
    assert any(step["grad/norm"] > 0 for step in steps)
    assert "INFO" not in out + err
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["after"]["perception"]["n"] == 4


def test_an_interrupted_run_resumes_with_the_weights_of_its_checkpoint(tmp_path: Path) -> None:
    running = start(tmp_path)
    while not (tmp_path / "run" / "checkpoints" / "step_000001" / "DONE").exists():
        assert running.poll() is None, running.communicate()
        time.sleep(0.2)
    running.send_signal(signal.SIGINT)
    running.communicate()
    assert running.returncode == 130
    again = start(tmp_path)
    _, err = again.communicate()
    assert again.returncode == 0, err[-4000:]
    assert [step["step"] for step in metrics(tmp_path)] == [1, 2, 3]
    assert all(step["policy/drift"] < 1e-3 for step in metrics(tmp_path))
