"""A study of the real train.py on a blank model: minutes, so it is marked slow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from percasym.cli.main import main
from tests.unit.launch.conftest import environment, meta

ROOT = Path(__file__).resolve().parents[3]
FEW = ["scale=smoke", "engine=torch", "paradigm.batch_size=2", "evaluation.num_samples=2", "evaluation.num_curve_samples=1",
       "evaluation.max_new_tokens=4"]  # fmt: skip


@pytest.mark.slow
def test_a_study_trains_its_cells_and_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two cells train; the other two start from a model that is not there, which only their own processes find out."""
    import torch

    from percasym.models.architecture import write_blank
    from percasym.tasks.sudoku.task import Sudoku
    from percasym.types import SampleKey

    samples = [Sudoku(verbosity=0).sample(SampleKey(task="sudoku", split="base", seed=0, index=index)) for index in range(20)]
    torch.manual_seed(0)
    texts = [part for s in samples for part in (s.prompt.question, s.demonstration.perception, s.demonstration.reasoning)]
    write_blank(tmp_path / "blank", texts)
    words = ["experiment=sft_frontier", *FEW, "balance=none,ngdiff", "seed=0", "model.path=blank,gone"]
    name = "hydra.sweep.subdir='${cell:model.path}/seed${seed}'"
    command = [sys.executable, str(ROOT / "train.py"), *words, name]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    study = tmp_path / "multirun/sft_frontier"
    assert meta(study / "sudoku-qwen3vl-sft-ngdiff-blank-smoke/seed0")["status"] == "done"
    assert "2 done, 2 failed" in done.stdout
    assert "sudoku-qwen3vl-sft-none-gone-smoke/seed0 failed: " in done.stderr
    assert main(["status", str(study)]) == 0
    assert "2 done, 2 failed" in capsys.readouterr().out
    assert main(["report", str(study)]) == 0
    assert (study / "report/report.html").exists()
