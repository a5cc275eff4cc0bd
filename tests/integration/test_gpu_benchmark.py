"""benchmarks/gpu.py at toy size on the CPU: every part runs and writes its numbers."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"
PARTS = ("sft_none", "sft_ngdiff", "attention", "decoding", "sft_ngdiff_float32_weights")


def test_every_part_of_the_gpu_benchmark_runs_at_toy_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setenv("LOCAL_RANK", "0")  # ZeRO-3 needs it to stay; other tests need it to go.
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_benchmark", module)
    spec.loader.exec_module(module)
    module.main(["--toy", "--out", str(tmp_path / "gpu.json")])
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["left_out"] == [] and written["device"] == "cpu"
    for part in PARTS:
        assert "error" not in written[part], f"{part}: {written[part]}"
    for part in ("sft_none", "sft_ngdiff"):
        assert written[part]["tokens_per_second"] > 0 and math.isfinite(written[part]["planned_bytes"])
        assert written[part]["mfu"] is None and written[part]["peak_bytes"] is None, "not measured on a CPU"
    extra = written["sft_ngdiff"]["planned_bytes"] - written["sft_none"]["planned_bytes"]
    assert extra > 0, "the gradient of a span"
    assert written["attention"]["flash_attention_2"] == "flash-attn or a GPU is not here"
    assert written["decoding"]["tokens_per_second"] > 0
