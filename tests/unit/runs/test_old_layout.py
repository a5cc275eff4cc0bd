"""A run directory written before classes moved (old_layout/: percasym.paradigm.Sft and others) still resumes and is reported.

Recorded by an earlier revision with `train.py scale=smoke study=before evaluation.num_samples=4 evaluation.num_curve_samples=2`; two of
the four samples of each evaluation are kept, one of them without its picture.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from percasym.cli.main import main
from percasym.config import plugins
from percasym.config.paradigm import Sft
from percasym.config.resolve import rebuild
from percasym.config.schema import ConfigError
from percasym.config.settings import Settings
from percasym.runs.identity import RunConflict, find
from percasym.runs.rundir import LogPosition, RunDirectory


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    """The finished run, as an earlier revision wrote it."""
    path = tmp_path / "before" / "sudoku-qwen3vl-sft-none-smoke" / "seed0"
    shutil.copytree(Path(__file__).with_name("old_layout"), path)
    return path


@pytest.fixture
def interrupted(old_run: Path) -> Path:
    """The same run, stopped after its first step."""
    (old_run / "summary.json").unlink()
    meta = json.loads((old_run / "meta.json").read_text())
    (old_run / "meta.json").write_text(json.dumps(meta | {"status": "interrupted"}))
    lines = (old_run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    end = next(number for number, line in enumerate(lines) if json.loads(line)["step"] == 2)
    checkpoint = old_run / "checkpoints" / "step_000001"
    checkpoint.mkdir(parents=True)
    position = LogPosition(step=1, num_bytes=sum(map(len, lines[:end])), num_lines=end, identity=meta["id"])
    (checkpoint / "DONE").write_text(position.note())
    return old_run


def settings_of(path: Path) -> Settings:
    """Today's settings of the run: what its command line resolves to."""
    return rebuild(yaml.safe_load((path / "config.yaml").read_text()), path=path)


def test_recorded_class_paths_are_those_of_the_old_layout_and_of_no_module_today(old_run: Path) -> None:
    recorded = yaml.safe_load((old_run / "config.yaml").read_text())
    assert {recorded[group]["_target_"] for group in ("paradigm", "engine")} <= set(plugins.MOVED)
    for old, new in plugins.MOVED.items():
        group = {"paradigm": "paradigm", "sampling": "rollout", "settings": "engine"}[old.split(".")[1]]
        required = {"paradigm": {"steps": 1, "batch_size": 1, "micro_batch_size": 1, "lr": 1.0}, "rollout": {"max_new_tokens": 1}}
        made = plugins.plugin(group, {"_target_": old} | required.get(group, {}), None, ("percasym",))
        assert plugins.recorded(made)["_target_"] == new, "every alias leads to a class that is there"


def test_a_run_of_the_old_layout_is_the_same_run(old_run: Path) -> None:
    settings = settings_of(old_run)
    assert isinstance(settings.paradigm, Sft)
    assert settings.record["paradigm"]["_target_"] == "percasym.config.paradigm.Sft"  # type: ignore[index, call-overload]
    found = find(old_run, settings.record)
    assert found.status == "finished"
    assert found.config is not None and found.config["paradigm"]["_target_"] == "percasym.paradigm.Sft", "the record itself is not changed"


def test_an_interrupted_run_of_the_old_layout_resumes(interrupted: Path) -> None:
    settings = settings_of(interrupted)
    assert find(interrupted, settings.record).status == "resumable"
    run = RunDirectory.open(interrupted, settings.record)
    assert run.latest_checkpoint() == (1, interrupted / "checkpoints" / "step_000001")
    assert sorted(run.logged("eval/perception")) == [0, 1], "the lines of step 2 are deleted"
    assert run.read_samples("test", 0) is not None and run.read_samples("test", 2) is None
    run.log(2, {"loss/total": 0.5})
    run.finish({})
    assert find(interrupted, settings.record).status == "finished"


def test_without_the_aliases_it_is_refused(interrupted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: an earlier class path without an alias is another run, and cannot be rebuilt."""
    wanted = settings_of(interrupted).record
    monkeypatch.setattr(plugins, "MOVED", {})
    with pytest.raises(RunConflict, match=r"holds a run with paradigm\._target_=percasym\.paradigm\.Sft, this one asks for paradigm"):
        find(interrupted, wanted)
    with pytest.raises(ConfigError, match=r"paradigm\._target_=percasym\.paradigm\.Sft cannot be imported"):
        settings_of(interrupted)


def test_another_configuration_is_refused_all_the_same(interrupted: Path) -> None:
    wanted = dict(settings_of(interrupted).record)
    wanted["paradigm"] = dict(wanted["paradigm"]) | {"lr": 0.5}  # type: ignore[arg-type]
    with pytest.raises(RunConflict, match=r"holds a run with paradigm\.lr=0\.001, this one asks for paradigm\.lr=0\.5\."):
        find(interrupted, wanted)


def test_a_run_of_the_old_layout_is_reported_and_compared(old_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = str(old_run.parents[1])
    assert main(["report", study]) == 0
    assert (old_run.parents[1] / "report" / "report.html").exists()
    assert main(["compare", study]) == 0
    assert "a_p" in capsys.readouterr().out
    assert main(["status", study]) == 0
    assert "1 done" in capsys.readouterr().out
