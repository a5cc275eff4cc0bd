"""`percasym train` is train.py, and `percasym demo` the study of `make demo` with its report."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from percasym.cli import main as cli
from percasym.cli import train as command
from percasym.config.schema import ConfigError
from percasym.launch import main as launch
from percasym.launch import train as package_train
from percasym.launch.sweep.cell_process import STUDY

ROOT = Path(__file__).resolve().parents[2]
WAITS = """
import signal, sys, time
from pathlib import Path
got = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda signum, frame: got.append(signum))
Path("ready").touch()
while not got:
    time.sleep(0.02)
time.sleep(0.3)
sys.exit(100 + len(got))
"""
"""A training that ends in order at its first signal, and says in its exit code how many it got."""
CALL = """
import sys
from percasym.cli.train import _waited_for
sys.exit(_waited_for([sys.executable, "waits.py"]))
"""


def percasym(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-c", "import sys; from percasym.cli.main import main; sys.exit(main())"]
    outside = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([*start, *words], cwd=cwd, env=outside, capture_output=True, text=True, check=False)


def test_train_has_the_grammar_the_help_and_the_exit_codes_of_train_py(tmp_path: Path) -> None:
    shown = percasym("train", "--cfg", "job", "balance=fixed", "paradigm.lr=0.5", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    by_script = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--cfg", "job", "balance=fixed", "paradigm.lr=0.5"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == by_script.stdout
    refused = percasym("train", "balance.weight=1.7", "balance=fixed", cwd=tmp_path)
    assert (refused.returncode, refused.stderr) == (2, "balance.weight must lie in [0, 1], got 1.7.\n")
    assert "Post-train a vision-language model" in percasym("train", "--help", cwd=tmp_path).stdout
    assert list(tmp_path.iterdir()) == []


def test_cells_of_an_installed_package_start_its_own_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[list[str]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr(launch, "run_cell", lambda words, path: started.append(words))
    monkeypatch.setattr(launch, "_defect", lambda error: (_ for _ in ()).throw(error))
    launch.main(package_train.train, package_train.CONF, ["-m", "seed=0,1", "scale=smoke"])
    assert [words[:3] for words in started] == [[sys.executable, "-m", "percasym.launch.train"]] * 2
    assert "hydra.mode=RUN" in started[0]


def test_the_demo_is_its_study_and_then_its_report(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(command, "_waited_for", lambda words: done.append(words[1:]) or 0)
    monkeypatch.setattr(command, "write_report", lambda given: done.append(given.runs))
    assert cli.main(["demo"]) == 0
    assert cli.main(["demo", "study=mine", "seed=1"]) == 0
    start = ["-m", "percasym.launch.train", "experiment=demo"]
    assert done == [start, [Path("multirun/demo")], [*start, "study=mine", "seed=1"], [Path("multirun/mine")]]


def test_a_demo_that_fails_ends_with_the_code_of_its_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_waited_for", lambda words: 130)
    monkeypatch.setattr(command, "write_report", lambda given: pytest.fail("there is nothing to report"))
    with pytest.raises(SystemExit) as ended:
        cli.main(["demo"])
    assert ended.value.code == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("group", [True, False], ids=["terminal", "process"])
def test_a_signal_reaches_the_training_once(tmp_path: Path, number: int, group: bool) -> None:
    """A terminal sends Ctrl-C to all processes of the foreground; a second signal would end a run without a checkpoint."""
    (tmp_path / "waits.py").write_text(WAITS)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", CALL], cwd=tmp_path, env=environment, start_new_session=True)
    give_up = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < give_up
        time.sleep(0.02)
    (os.killpg if group else os.kill)(process.pid, number)
    assert process.wait(timeout=30) == 101


def test_the_training_knows_the_process_with_which_it_ends() -> None:
    assert command.STUDY == STUDY


def test_a_configuration_that_is_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from percasym.cli import arguments

    assert arguments.conf_folder() == ROOT / "conf"
    monkeypatch.setattr(arguments, "CONF", tmp_path / "conf")
    with pytest.raises(ConfigError, match=r"^There is no folder .*conf\. Clone the repository again"):
        arguments.conf_folder()
