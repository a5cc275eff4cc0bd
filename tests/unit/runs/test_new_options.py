"""A run begun before an option existed is the same run: it resumes, is reported, and is refused only for another value."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from percasym.cli.main import main
from percasym.config import plugins
from percasym.config.resolve import rebuild
from percasym.runs.identity import RunConflict, find

NEW = {"evaluation": ("engine", "precision", "gpu_memory_frac")}
"""Options of `evaluation` that the recorded run of old_layout/ does not have."""


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    """A run as it was recorded before evaluations could go through vLLM."""
    path = tmp_path / "before" / "sudoku-qwen3vl-sft-none-smoke" / "seed0"
    shutil.copytree(Path(__file__).with_name("old_layout"), path)
    recorded = yaml.safe_load((path / "config.yaml").read_text())
    assert not set(NEW["evaluation"]) & recorded["evaluation"].keys()
    return path


def test_a_run_without_the_options_of_evaluation_resumes_and_is_reported(old_run: Path, capsys: pytest.CaptureFixture) -> None:
    wanted = rebuild(yaml.safe_load((old_run / "config.yaml").read_text()), path=old_run).record
    assert set(NEW["evaluation"]) <= wanted["evaluation"].keys(), "today's command has them"  # type: ignore[union-attr]
    assert find(old_run, wanted).status == "finished"
    assert main(["report", str(old_run.parents[1])]) == 0
    meta = old_run / "meta.json"
    meta.write_text(meta.read_text().replace('"done"', '"interrupted"'))
    assert find(old_run, wanted).status == "resumable"


def test_another_value_of_a_new_option_is_another_run(old_run: Path) -> None:
    wanted = dict(rebuild(yaml.safe_load((old_run / "config.yaml").read_text()), path=old_run).record)
    wanted["evaluation"] = {**wanted["evaluation"], "engine": "vllm"}  # type: ignore[dict-item]
    with pytest.raises(RunConflict, match=r"evaluation\.engine=native, this one asks for evaluation\.engine=vllm"):
        find(old_run, wanted)


def test_without_the_defaults_it_is_refused(old_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first test can fail: what was recorded is compared as it stands."""
    wanted = rebuild(yaml.safe_load((old_run / "config.yaml").read_text()), path=old_run).record
    monkeypatch.setattr(plugins, "EVALUATION", "no section")
    with pytest.raises(RunConflict, match=r"no evaluation\.engine, this one asks for evaluation\.engine=native"):
        find(old_run, wanted)
