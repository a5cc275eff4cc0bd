"""Files of a configuration are data: nothing of theirs is called, imported, deleted or written elsewhere, however they get in."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest
import yaml

from percasym.cli import main as cli
from percasym.config.resolve import composed
from percasym.launch import main as launch
from percasym.launch.sweep.cell_process import Outcome

ROOT = Path(__file__).resolve().parents[2]
TOUCH = {"_target_": "os.mkdir", "path": "owned"}
CELLS = {
    "callback in a cell": ["+hydra.callbacks.x._target_=os.mkdir", "The cells of a study set hydra.callbacks.x._target_, "],
    "launcher in a cell": ["hydra/launcher=joblib", "The cells of a study set hydra/launcher, "],
    "package in a cell": ["plugins=[evil]", "The cells of a study set plugins, "],
    "overwriting in a cell": ["++run.overwrite=true", "The cells of a study set run.overwrite, "],
    "task as a mapping in a cell": ["++task={allow_outside:true}", "The cells of a study set task, "],
    "whole section in a cell": ["run={overwrite:true}", "The cells of a study set run, "],
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An importable package, `evil`, that makes a folder when it is imported, as its class does when it is built."""
    (tmp_path / "site" / "evil").mkdir(parents=True)
    (tmp_path / "site" / "evil" / "__init__.py").write_text("import os\nos.makedirs('owned', exist_ok=True)\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "evil", raising=False)


@pytest.fixture
def experiment(tmp_path: Path, package: None):
    """`experiment({...})`: write mine/experiment/evil.yaml; returns the words that choose it."""

    def write(content: dict) -> list[str]:
        folder = tmp_path / "mine" / "experiment"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "evil.yaml").write_text("# @package _global_\n" + yaml.safe_dump(content))
        return ["--config-dir=mine", "experiment=evil", "scale=smoke"]

    return write


@pytest.fixture
def refused(command, tmp_path: Path):
    """`refused("task=sudoku", ...)`: what the command says, once it is one sentence and nothing was called or written."""

    def words(*given: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        answer = command(*given)
        assert not (tmp_path / "owned").exists(), "it was called"
        assert answer.code == 2, answer.err
        assert "Traceback" not in answer.err
        assert [path for path in sorted(tmp_path.rglob("*")) if path not in before and "__pycache__" not in path.parts] == []
        return answer.err.strip()

    return words


def test_an_option_of_a_launcher_has_nothing_called(refused, experiment, tmp_path: Path) -> None:
    words = experiment({"defaults": [{"override /hydra/launcher": "evil"}]})
    (tmp_path / "mine" / "hydra" / "launcher").mkdir(parents=True)
    joblib = {"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"}
    for more, sentence in (
        ({"x": TOUCH}, "hydra.launcher holds a key _target_, which Hydra would act on."),
        ({"temp_folder": "owned"}, "A file sets hydra.launcher.temp_folder to 'owned', and that counts only on the command line."),
        ({"n_jobs": "1\ntouch owned"}, "A file sets hydra.launcher.n_jobs to '1\\ntouch owned', and that counts only on the command line."),
    ):
        (tmp_path / "mine" / "hydra" / "launcher" / "evil.yaml").write_text(yaml.safe_dump(joblib | more))
        assert refused(*words).startswith(sentence)


def test_however_the_file_gets_in(refused, experiment) -> None:
    words = experiment({"hydra": {"callbacks": {"evil": TOUCH}}})
    sentence = "hydra.callbacks calls os.mkdir, and percasym calls no callbacks."
    for given in (["-m", *words], [*words, "--cfg=job"], ["hydra.searchpath=[mine]", *words[1:]], [*words, "hydra.mode=MULTIRUN"]):
        assert refused(*given).startswith(sentence)


@pytest.mark.parametrize("name", CELLS)
def test_cells_of_a_file_are_no_words_of_the_user(refused, experiment, name: str) -> None:
    word, sentence = CELLS[name]
    key, _, value = word.partition("=")
    for sweeper in ({"cells": [word]}, {"params": {key: value}})[: 2 if key == "plugins" else 1]:
        assert refused("-m", *experiment({"hydra": {"sweeper": sweeper}})).startswith(sentence)


def test_a_file_grants_itself_no_trust(refused, experiment, command, tmp_path: Path) -> None:
    words = experiment({"plugins": ["evil"], "balance": {"_target_": "evil.Balance"}})
    told = "A file sets plugins=[evil], and that counts only on the command line. Add plugins=[evil] there if you trust the file."
    assert refused(*words) == told
    assert refused("-m", *words, "seed=0,1") == told
    assert command(*words, "plugins=[evil]").err.startswith("balance._target_=evil.Balance cannot be imported (")
    assert (tmp_path / "owned").is_dir(), "the user named it, so it was imported"


def test_a_file_overwrites_no_run(refused, experiment, resolved) -> None:
    words = experiment({"run": {"overwrite": True}})
    assert refused(*words).startswith("A file sets run.overwrite=true, and that counts only on the command line. ")
    assert [settings.run.overwrite for settings in resolved(*words, "run.overwrite=true")] == [True]


def test_words_for_commands_without_hydra_are_checked_alike(experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    words = experiment({"plugins": ["evil"], "balance": {"_target_": "evil.Balance"}})
    assert cli.main(["plan", "hydra.searchpath=[mine]", *words[1:]]) == 2
    assert capsys.readouterr().err.startswith("A file sets plugins=[evil], ")
    assert not (tmp_path / "owned").exists()


def test_what_a_study_needs_may_be_in_its_file(experiment, command, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {
        "defaults": [{"override /hydra/launcher": "joblib"}],
        "hydra": {
            "launcher": {"n_jobs": 1},
            "sweep": {"subdir": "${cell:balance.weight}/seed${seed}"},
            "sweeper": {"cells": ["balance=fixed balance.weight=0.1"], "params": {"seed": "0,1"}},
        },
    }
    ran: list[Path] = []

    def run_cell(command: list[str], path: Path) -> Outcome:
        ran.append(path)
        return Outcome(state="done")

    monkeypatch.setattr(launch, "run_cell", run_cell)
    command("-m", *experiment(content))
    assert [path.name for path in ran] == ["seed0", "seed1"]


def test_the_command_line_may_say_what_a_file_may_not(experiment, resolved, tmp_path: Path) -> None:
    (settings,) = resolved(*experiment({}), f"hydra.run.dir={tmp_path / 'there'}")
    assert settings.path == Path("there")


def test_flags_that_replace_the_configuration_or_load_a_pickle_are_refused(refused, tmp_path: Path) -> None:
    (tmp_path / "job.pickle").write_bytes(pickle.dumps({"a": 1}))
    assert refused("--experimental-rerun=job.pickle").startswith("--experimental-rerun loads a pickle, which could call anything.")
    for flag in (f"--config-path={tmp_path}", "--config-name=evil"):
        assert refused(flag).startswith("train.py composes conf/config.yaml, so --config-path and --config-name have no use.")


def test_a_replayed_run_imports_no_package_that_the_user_does_not_name(tmp_path: Path, monkeypatch, capsys, package: None) -> None:
    monkeypatch.chdir(tmp_path)
    record = composed(["scale=smoke"], ROOT / "conf").record
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({**record, "plugins": ["evil"], "balance": {"_target_": "evil.Balance"}}))
    (tmp_path / "run" / "meta.json").write_text('{"id": "0", "status": "failed", "seconds": 0.0}')
    assert cli.main(["replay", "run"]) == 2
    assert capsys.readouterr().err == "run was made with plugins=[evil], whose code would run. Add --plugins evil if you trust it.\n"
    assert not os.path.exists("owned")
    assert cli.main(["replay", "run", "--plugins", "evil"]) == 2
    assert capsys.readouterr().err.startswith("balance._target_=evil.Balance cannot be imported (")
    assert os.path.exists("owned"), "the user named it, so it was imported"
