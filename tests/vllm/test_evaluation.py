"""`percasym evaluate` with both engines in float32: the same answers, token for token, except where two logits tie.

256 samples with three answers each, both families; minutes on one core.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
PERCASYM = str(Path(sys.executable).with_name("percasym"))
NUM_SAMPLES = 256
TIE = 1e-4
"""Two logits closer than this are a tie, which kernels may break differently."""


def evaluate(folder: Path, family: str, engine: str) -> list[dict[str, Any]]:
    """The records that the command writes for the packaged model."""
    words = [f"model={family}", f"evaluation.engine={engine}", "evaluation.precision=float32", f"evaluation.num_samples={NUM_SAMPLES}"]
    command = [PERCASYM, "evaluate", *words, "--out", engine]
    done = subprocess.run(command, cwd=folder, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads((folder / engine / "meta.json").read_text())["kind"] == "evaluation"
    return [json.loads(line) for line in (folder / engine / "samples" / "test_000000.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["qwen3vl", "internvl35"])
def test_both_engines_give_the_same_evaluation(tmp_path: Path, name: str, capsys: pytest.CaptureFixture) -> None:
    import torch

    from percasym.config.resolve import composed
    from percasym.tasks.base import prompt_as_text
    from percasym.types import SampleKey

    native, vllm = (evaluate(tmp_path, name, engine) for engine in ("native", "vllm"))
    settings = composed([f"model={name}"], ROOT / "conf")
    family, task = settings.family, settings.task
    model, counts, others = family.load().eval(), Counter[str](), list[str]()
    assert len(native) == len(vllm) == NUM_SAMPLES
    for ours, theirs in zip(native, vllm, strict=True):
        sample = task.sample(SampleKey(**ours["key"]))
        for kind in ("image", "prefix", "text"):
            a, b = ours["responses"][kind]["ids"], theirs["responses"][kind]["ids"]
            if a == b:
                counts["equal"] += 1
                continue
            at = next((i for i, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]), None)
            if at is not None:
                prompt = prompt_as_text(sample) if kind == "text" else sample.prompt
                row = family.prompt(prompt).followed_by(a[:at], [-1] * at)
                with torch.inference_mode():
                    logits = model(**family.collate([row]).arguments).logits[0, -1]
                if abs(float(logits[a[at]] - logits[b[at]])) < TIE:
                    counts["tie"] += 1
                    continue
            others.append(f"sample {ours['key']['index']}, {kind}, token {at}")
    with capsys.disabled():
        of = f"{counts['equal']} of {3 * NUM_SAMPLES} answers equal token for token"
        print(f"\n{name}: {of}, {counts['tie']} part at a tie, {len(others)} others")
    assert others == []
    assert counts["equal"] >= 0.97 * 3 * NUM_SAMPLES

    words = [PERCASYM, "compare", "native", "vllm"]
    compared = subprocess.run(words, cwd=tmp_path, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    assert compared.returncode == 0 and "B - A, paired" in compared.stdout, compared.stdout + compared.stderr
