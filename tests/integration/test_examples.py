"""The scripts of examples/, run as a user runs them, on the packaged tiny model and on rows of `percasym export`."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from percasym.data.export import export
from percasym.models.locate import packaged
from percasym.tasks.sudoku.task import Sudoku

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODEL = packaged("qwen3vl")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A script as a module, in an empty folder, on the CPU and without a network."""
    for name, value in {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "CI": "1", "ACCELERATE_USE_CPU": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def load(name: str) -> ModuleType:
        return SimpleNamespace(**runpy.run_path(str(EXAMPLES / name)))

    return load


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return export(Sudoku(verbosity=0), split="train_sft", seed=0, num=16, out=tmp_path / "rows", format="messages")


def logged(trainer) -> list[dict[str, float]]:
    return [line for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_a_script_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 60


def assert_balanced(lines: list[dict[str, float]]) -> None:
    """Both spans have tokens, losses fall, and NGDiff moves the weight from step to step."""
    assert len(lines) == 3
    for line in lines:
        # At verbosity 0, 8 or so of some 40 tokens are perception.
        assert 0 < line["tokens/perception"] < line["tokens/reasoning"]
        weighted = line["balance/weight"] * line["loss/perception"] + (1 - line["balance/weight"]) * line["loss/reasoning"]
        assert line["loss"] == pytest.approx(weighted, rel=1e-3)
        norms = line["grad/perception"], line["grad/reasoning"]
        assert line["balance/weight"] == pytest.approx(norms[1] / sum(norms), rel=1e-3)
    assert len({line["balance/weight"] for line in lines}) == 3


def test_the_trainer_of_transformers(script, rows: Path, capsys: pytest.CaptureFixture) -> None:
    trainer = script("trainer.py").main([str(rows), MODEL, "--steps", "3"])
    assert_balanced(logged(trainer))
    assert "of the language model's gradient" in capsys.readouterr().out, "the audit gives its advice"


def test_the_sft_trainer_of_trl(script, rows: Path) -> None:
    pytest.importorskip("trl", reason="pip install 'percasym[trl]'")
    assert_balanced(logged(script("trl_sft.py").main([str(rows), MODEL, "--steps", "3"])))


def test_the_grpo_trainer_of_trl(script) -> None:
    pytest.importorskip("trl", reason="pip install 'percasym[trl]'")
    trainer = script("trl_grpo.py").main([MODEL, "--steps", "2", "--num", "8", "--tokens", "32"])
    lines = logged(trainer)
    assert len(lines) == 2
    for line in lines:
        paid = 0.7 * line["rewards/outcome/mean"] + 0.3 * line["rewards/consensus/mean"]
        assert line["reward"] == pytest.approx(paid, abs=1e-5)
        assert 0 <= line["reward/consensus/zero_variance"] <= 1
