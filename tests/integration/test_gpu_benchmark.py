"""benchmarks/gpu.py at toy size on the CPU: every part runs and writes its numbers."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("LOCAL_RANK", "0")  # ZeRO-3 needs it to stay; other tests need it to go.
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_benchmark", module)
    spec.loader.exec_module(module)
    return module


def test_every_part_of_the_gpu_benchmark_runs_at_toy_size(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    found = {part: benchmark.main(["--toy", "--part", part]) for part in benchmark.PARTS}
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == found["decoding"], "what the process that asks for a part reads"
    for part, values in found.items():
        assert "error" not in values, f"{part}: {values}"
    for part in ("zero3", "plain"):
        for step in found[part].values():
            assert step["tokens_per_second"] > 0 and math.isfinite(step["planned_bytes"])
            assert step["mfu"] is None and step["peak_bytes"] is None, "not measured on a CPU"
        assert found[part]["ngdiff"]["planned_bytes"] > found[part]["none"]["planned_bytes"], "the gradient of a span"
    assert found["attention"]["flash_attention_2"] == "flash-attn or a GPU is not here"
    assert found["decoding"]["tokens_per_second"] > 0


@pytest.mark.slow
def test_each_part_is_measured_in_a_process_of_its_own(benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "PARTS", ("decoding", "no such part"))
    benchmark.main(["--toy", "--out", str(tmp_path / "gpu.json")])
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert written["left_out"] == [] and written["device"] == "cpu"
    assert written["decoding"]["tokens_per_second"] > 0
    assert "invalid choice" in written["no such part"]["error"], "a part that fails leaves the others"
    monkeypatch.setattr(benchmark, "MAX_SECONDS", -1)
    benchmark.main(["--toy", "--out", str(tmp_path / "late.json")])
    assert json.loads((tmp_path / "late.json").read_text())["left_out"] == ["decoding", "no such part"], "named in the file"
