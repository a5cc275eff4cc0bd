"""docs/in-your-trainer.md as a newcomer follows it: its blocks of code, in their order, on the packaged tiny model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from percasym.data.export import export
from percasym.models.locate import packaged
from percasym.tasks.sudoku.task import Sudoku

PAGE = Path(__file__).resolve().parents[2] / "docs" / "in-your-trainer.md"
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def test_the_blocks_of_the_page_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl", reason="pip install 'percasym[trl]'")
    for name, value in {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "CI": "1", "ACCELERATE_USE_CPU": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    rows = export(Sudoku(verbosity=0), split="train_sft", seed=0, num=16, out=tmp_path / "rows", format="messages")
    first, *rest = blocks(PAGE.read_text(encoding="utf-8"))
    assert first == 'MODEL = "Qwen/Qwen3-VL-2B-Instruct"\nROWS = "rows/train_sft.jsonl"\n'
    assert len(rest) == 5
    names: dict = {"MODEL": packaged("qwen3vl"), "ROWS": str(rows)}
    for number, block in enumerate(rest, start=2):
        exec(compile(block, f"block {number} of {PAGE.name}", "exec"), names)
    assert names["state"].weight == 0.25
    assert names["model"].lm_head.weight.grad is not None


def test_the_table_of_factors_is_right() -> None:
    # p = 0.025 and w = 0.5: w (1 - p) / ((1 - w) p) = 39; w / p = 20; (1 - w) / (1 - p) = 0.5128.
    p, w = 0.025, 0.5
    factor = w * (1 - p) / ((1 - w) * p)
    assert factor == pytest.approx(39)
    assert factor * p / (factor * p + 1 - p) == pytest.approx(w), "LLaMA-Factory v1: lambda N_p / (lambda N_p + N_r)"
    assert (w / p, (1 - w) / (1 - p)) == pytest.approx((20, 0.5128), rel=1e-3)
    assert w / p * p + (1 - w) / (1 - p) * (1 - p) == pytest.approx(1), "ms-swift: the factors average to 1"
    text = PAGE.read_text(encoding="utf-8")
    assert "λ = 39, and 20 beside 0.51" in text
